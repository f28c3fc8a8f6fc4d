"""A million rows in one file: memory on the way, one kill in the middle, and the same bytes in the end.

    python -m benchmarks.million_rows FILE.tsv [--rows 1000000] [--bundle BUNDLE] [--words N] [--no-kill] [--json OUT]

FILE is a TSV table of translations; its rows are repeated with a number of their own in both texts, so that no row
comes twice. Without --bundle they are scored with the bundle that the tests make, whose graph only counts tokens:
what is measured is then reading, tokenising, planning, writing and the journal. Memory is that of the scoring process
when its journal first tells of so many rows (VmRSS and VmHWM of Linux), and the peak that was seen last. One run goes
through; a second one is killed (SIGKILL) half way and continued by the same command; their outputs are compared.

A million whole rows take hours with a bundle that scores. --words makes pairs of N words in sequence, drawn from all
sources and all translations, of which none comes twice, and leaves every hundredth row whole, with its number;
--no-kill stops after the run that goes through.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path

from qe_edge.prompt import Prompt
from qe_edge.table.table import open_table
from tests.qe_edge.conftest import write_counting_bundle

MILESTONES = (1_000, 10_000, 100_000, 500_000, 900_000)
"""rows after which memory is told, as far as there are so many"""
POLL_SECONDS = 0.02
WHOLE_EVERY = 100
DRAWN_IN_VAIN = 1_000


def write_rows(source: str, target: Path, rows: int, words: int | None) -> None:
    """Rows of a table again and again, each with its own number at the end of both texts; or new pairs of `words`."""
    with open_table(source, prompt=Prompt("{src} {mt}")) as table:
        texts = [
            item.row.texts for item in table.items if item.row.fault is None and all(map(str.split, item.row.texts))
        ]
    short = short_pairs(texts, words) if words else iter(())
    with target.open("w", encoding="utf-8") as stream:
        stream.write("source\ttranslation\n")
        for number, (one, other) in enumerate(islice(cycle(texts), rows)):
            if words and number % WHOLE_EVERY:
                stream.write("\t".join(next(short)) + "\n")
            else:
                stream.write(f"{one} {number}\t{other} {number}\n")


def short_pairs(texts: list[tuple[str, ...]], words: int) -> Iterator[tuple[str, str]]:
    """Pairs of so many words in sequence, of sources and of translations drawn by chance, none of them twice."""
    chance = random.Random(0)
    sources, translations = ([text.split() for text in side] for side in zip(*texts, strict=True))
    met: set[tuple[str, str]] = set()
    in_vain = 0
    while in_vain < DRAWN_IN_VAIN:
        drawn = []
        for split in (chance.choice(sources), chance.choice(translations)):
            start = chance.randrange(max(1, len(split) - words + 1))
            drawn.append(" ".join(split[start : start + words]))
        pair = (drawn[0], drawn[1])
        in_vain = in_vain + 1 if pair in met else 0
        if not in_vain:
            met.add(pair)
            yield pair
    raise SystemExit(
        f"there are hardly more than {len(met)} pairs of {words} words; take another number, or fewer rows"
    )


class Run:
    """One `qe-edge score` that is watched from outside."""

    def __init__(self, source: Path, target: Path, bundle: Path) -> None:
        self._journal = target.with_name(f".{target.name}.journal")
        command = [sys.executable, "-m", "qe_edge", "score", str(source), "-o", str(target), "-q"]
        self.process = subprocess.Popen([*command, "-m", str(bundle), "--lp", "et-en", "--device", "cpu"])
        self.memory: dict[int, dict[str, float]] = {}
        """MiB by rows done"""
        self.peak_mib = 0.0
        """as it was seen last"""

    def watch(self, until: int) -> None:
        """Until so many rows are done or the process has ended; tells memory at every milestone."""
        due = [rows for rows in MILESTONES if rows <= until]
        while self.process.poll() is None:
            self.peak_mib = self._memory().get("peak_mib", self.peak_mib)
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
        if not found:  # it has ended, and nobody has asked for its exit code yet
            return {}
        return {"now_mib": found["VmRSS"] / 1024, "peak_mib": found["VmHWM"] / 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--words", type=int)
    parser.add_argument("--no-kill", dest="kill", action="store_false")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows: int = arguments.rows
    if arguments.words is not None and arguments.words < 1:
        parser.error("--words: give 1 or more")
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        source, whole = (place / name for name in ("in.tsv", "whole.tsv"))
        write_rows(arguments.file, source, rows, arguments.words)
        bundle = arguments.bundle or write_counting_bundle(place / "bundle", token_limit=512)

        started = time.perf_counter()
        through = Run(source, whole, bundle)
        through.watch(rows + 1)
        seconds = time.perf_counter() - started
        if through.process.returncode:
            raise SystemExit("the first run failed")
        found = {
            "rows": rows,
            "input_bytes": source.stat().st_size,
            "memory": through.memory,
            "peak_mib": through.peak_mib,
            "seconds": seconds,
            "rows_per_second": rows / seconds,
        }
        if arguments.kill:
            found |= killed_and_continued(source, whole, bundle, rows)
    print(json.dumps(found, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


def killed_and_continued(source: Path, whole: Path, bundle: Path, rows: int) -> dict[str, float | bool]:
    """A run that is killed half way and continued by the same command, and whether it ends in the bytes of `whole`."""
    killed = whole.with_name("killed.tsv")
    first = Run(source, killed, bundle)
    first.watch(rows // 2)
    first.process.kill()
    first.process.wait()
    if killed.exists():
        raise SystemExit("the second run had finished before it was killed; take more --rows")
    started = time.perf_counter()
    code = Run(source, killed, bundle).process.wait()
    return {
        "seconds_after_the_kill": time.perf_counter() - started,
        "same_bytes_after_a_kill": code == 0 and filecmp.cmp(whole, killed, shallow=False),
    }


if __name__ == "__main__":
    main()
