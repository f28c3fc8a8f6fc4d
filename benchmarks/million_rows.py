"""A million rows in one file: memory on the way, one kill in the middle, and the same bytes in the end.

    python -m benchmarks.million_rows FILE.tsv [--rows 1000000] [--bundle BUNDLE] [--json OUT]

FILE is a TSV table of translations; its rows are repeated with a number of their own in both texts, so that no row
comes twice. Without --bundle they are scored with the bundle that the tests make, whose graph only counts tokens:
what is measured is then reading, tokenising, planning, writing and the journal. Memory is that of the scoring process
when its journal first tells of so many rows (VmRSS and VmHWM of Linux). One run goes through; a second one is killed
(SIGKILL) half way and continued by the same command; their outputs are compared.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import subprocess
import sys
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path

from qe_edge.prompt import Prompt
from qe_edge.table.table import open_table
from tests.qe_edge.conftest import write_counting_bundle

MILESTONES = (1_000, 100_000, 500_000, 900_000)
"""rows after which memory is told, as far as there are so many"""
POLL_SECONDS = 0.02


def write_rows(source: str, target: Path, rows: int) -> None:
    """Rows of a table again and again, each with its own number at the end of both texts."""
    with open_table(source, prompt=Prompt("{src} {mt}")) as table:
        texts = [item.row.texts for item in table.items if item.row.fault is None and all(item.row.texts)]
    with target.open("w", encoding="utf-8") as stream:
        stream.write("source\ttranslation\n")
        for number, (one, other) in enumerate(islice(cycle(texts), rows)):
            stream.write(f"{one} {number}\t{other} {number}\n")


class Run:
    """One `qe-edge score` that is watched from outside."""

    def __init__(self, source: Path, target: Path, bundle: Path) -> None:
        self._journal = target.with_name(f".{target.name}.journal")
        command = [sys.executable, "-m", "qe_edge", "score", str(source), "-o", str(target), "-q"]
        self.process = subprocess.Popen([*command, "-m", str(bundle), "--lp", "et-en", "--device", "cpu"])
        self.memory: dict[int, dict[str, float]] = {}
        """MiB by rows done"""

    def watch(self, until: int) -> None:
        """Until so many rows are done or the process has ended; tells memory at every milestone."""
        due = [rows for rows in MILESTONES if rows <= until]
        while self.process.poll() is None:
            done = self._rows()
            while due and done >= due[0]:
                self.memory[due.pop(0)] = self._memory()
            if done >= until:
                return
            time.sleep(POLL_SECONDS)

    def _rows(self) -> int:
        """Rows that the journal tells of."""
        try:
            rows: int = json.loads(self._journal.read_text(encoding="ascii"))["progress"]["rows"]
        except FileNotFoundError:  # not yet there, or no longer
            return 0
        return rows

    def _memory(self) -> dict[str, float]:
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii").splitlines()
        found = {
            name: int(value.split()[0])
            for name, _, value in (line.partition(":") for line in status)
            if name[:2] == "Vm"
        }
        return {"now_mib": found["VmRSS"] / 1024, "peak_mib": found["VmHWM"] / 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows: int = arguments.rows
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        source, whole, killed = (place / name for name in ("in.tsv", "whole.tsv", "killed.tsv"))
        write_rows(arguments.file, source, rows)
        bundle = arguments.bundle or write_counting_bundle(place / "bundle", token_limit=512)

        started = time.perf_counter()
        through = Run(source, whole, bundle)
        through.watch(rows + 1)
        seconds = time.perf_counter() - started
        if through.process.wait():
            raise SystemExit("the first run failed")

        first = Run(source, killed, bundle)
        first.watch(rows // 2)
        first.process.kill()
        first.process.wait()
        if killed.exists():
            raise SystemExit("the second run had finished before it was killed; take more --rows")
        started = time.perf_counter()
        again = Run(source, killed, bundle)
        code = again.process.wait()
        found = {
            "rows": rows,
            "input_bytes": source.stat().st_size,
            "memory": through.memory,
            "seconds": seconds,
            "rows_per_second": rows / seconds,
            "seconds_after_the_kill": time.perf_counter() - started,
            "same_bytes_after_a_kill": code == 0 and filecmp.cmp(whole, killed, shallow=False),
        }
    print(json.dumps(found, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
