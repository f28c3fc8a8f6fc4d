"""Cold start and memory of `qe-edge score`, the whole command as a process of its own.

    python benchmarks/whole_command.py FILE.tsv --lp et-en [--many 1000000] [--json OUT]

Cold start: 10 rows, from the start of the process to its end, median of five. Memory: the largest resident memory for
1,000 rows, median of three, and for many, which are the same rows over and over. Repeated rows are looked up, not run:
the run shows that reading, remembering and writing keep nothing; what the graph needs depends on a batch only.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROWS = 1000


def run(file: Path, lp: str | None, output: Path) -> tuple[float, float]:
    """Seconds and largest resident memory in MB of one whole command. Raises RuntimeError when it fails."""
    command = [sys.executable, "-m", "qe_edge", "score", str(file), "-o", str(output), "-q"]
    command += ["--lp", lp] if lp else []
    started = time.perf_counter()
    process = os.posix_spawn(sys.executable, command, os.environ)
    _, status, usage = os.wait4(process, 0)
    if status:
        raise RuntimeError(f"qe-edge score failed: {os.waitstatus_to_exitcode(status)}")
    return time.perf_counter() - started, usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--lp")
    parser.add_argument("--many", type=int, default=1_000_000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    header, *lines = arguments.file.read_text(encoding="utf-8").splitlines(keepends=True)[: ROWS + 1]
    with tempfile.TemporaryDirectory() as folder:
        table, output = Path(folder) / "rows.tsv", Path(folder) / "scored.tsv"

        def write(rows: int) -> None:
            with table.open("w", encoding="utf-8") as stream:
                stream.write(header)
                stream.writelines(lines[row % len(lines)] for row in range(rows))

        write(10)
        cold = [run(table, arguments.lp, output)[0] for _ in range(5)]
        write(ROWS)
        memory = statistics.median(run(table, arguments.lp, output)[1] for _ in range(3))
        write(arguments.many)
        seconds, memory_many = run(table, arguments.lp, output)
        with output.open(encoding="utf-8") as stream:
            written = sum(1 for _ in stream) - 1
    found = {
        "cold_start_seconds": statistics.median(cold),
        "memory_mb": memory,
        "many_rows": written,
        "many_memory_mb": memory_many,
        "many_seconds": seconds,
    }
    print(json.dumps(found, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
