"""Rows per second of a folder in one process and on Ray with one and with two workers.

    python benchmarks/scaling.py FILE.tsv --lp et-en [--rows 2000] [--shards 8] [--workers 1 2] [--json OUT]

The first rows of FILE are dealt out to shards, which are scored with the embedded bundle, each time from nothing and
with one thread a scorer. The time of a run is that of the whole command; a run over one row a shard says how much of it
is the start (of Python, the bundle, Ray), and the speed is that of the other rows in the rest of the time. Run it on an
idle machine.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path


def write_shards(lines: list[str], header: str, folder: Path, shards: int) -> None:
    """Deal rows out to tables."""
    folder.mkdir()
    for number in range(shards):
        (folder / f"{number:04d}.tsv").write_text(header + "".join(lines[number::shards]), encoding="utf-8")


def seconds(folder: Path, target: Path, lp: str | None, options: list[str]) -> float:
    """Of one whole command."""
    languages = [] if lp is None else ["--lp", lp]
    command = [sys.executable, "-m", "qe_edge", "score", str(folder), "-o", str(target), "-q", "--threads", "1"]
    started = time.perf_counter()
    subprocess.run([*command, *languages, *options], check=True)
    return time.perf_counter() - started


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.tsv")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--lp")
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with arguments.file.open(encoding="utf-8") as stream:
        header, lines = stream.readline(), list(islice(stream, arguments.rows))
    engines = {"one process": ["--engine", "process"]}
    engines |= {
        f"Ray, workers: {workers}": ["--engine", "ray", "--workers", str(workers)] for workers in arguments.workers
    }
    found = []
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        write_shards(lines, header, place / "all", arguments.shards)
        write_shards(lines[: arguments.shards], header, place / "few", arguments.shards)
        for number, (engine, options) in enumerate(engines.items()):
            start = seconds(place / "few", place / f"few-{number}", arguments.lp, options)
            whole = seconds(place / "all", place / f"all-{number}", arguments.lp, options)
            speed = (len(lines) - arguments.shards) / (whole - start)
            same = contents(place / f"all-{number}") == contents(place / "all-0")
            found.append(
                {
                    "engine": engine,
                    "rows": len(lines),
                    "seconds": whole,
                    "start_seconds": start,
                    "rows_per_second": speed,
                    "same_bytes_as_one_process": same,
                }
            )
    print(json.dumps(found, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
