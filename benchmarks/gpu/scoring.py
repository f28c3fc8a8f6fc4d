"""All rows of MLQE-PE test20, scored in several ways in turn: rows a second, and ratios to qe-edge.

    python -m benchmarks.gpu.scoring -o scoring.json
    python -m benchmarks.gpu.scoring --shape 1.5b --only 'qe-edge*' -o scoring-1.5b.json

Every way (`ways.py`) is a process that stays loaded; in each round all take turns, so that a change of the machine's
speed meets them all. `qe-edge-fp16-command` and `qe-edge-int4-command` are `qe-edge score`, from process start to the
written file. Figures are medians over rounds; the file is written after each. A way that fails is named with the reason
and not run again.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from benchmarks.gpu.rows import TINY_ROWS, rows_of_test20, write_table
from benchmarks.gpu.step import finish, last_line, made_bundle, parser, passed_on, run, say, write
from qe_edge.errors import QeEdgeError

WAYS = (
    *("qe-edge-fp16", "transformers", "qe-edge-fp16-command", "qe-edge-int4", "transformers-flash"),
    *("onnxruntime", "transformers-compiled", "qe-edge-int4-command"),
)
"""In the order in which they take turns."""
COMMAND = "-command"
OURS = "qe-edge-fp16"


class Worker:
    """A way in a process of its own. Construct it with what `ways.py` is to be told.

    Raises RuntimeError with the last line of its messages when it fails, now or in a round.
    """

    def __init__(self, way: str, options: Namespace, folder: Path) -> None:
        self.messages = folder / f"{way}.log"
        command = [sys.executable, "-m", "benchmarks.gpu.ways", way, "--shape", options.shape, *passed_on(options)]
        with self.messages.open("w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )
        self.facts = self._answer()

    def score(self) -> dict[str, Any]:
        """One round."""
        assert self.process.stdin is not None
        try:
            print("again", file=self.process.stdin, flush=True)
        except BrokenPipeError:
            raise RuntimeError(self._fault()) from None
        return self._answer()

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def _answer(self) -> dict[str, Any]:
        """The next line of JSON; libraries may print other lines."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                answer: dict[str, Any] = json.loads(line)
                return answer
        raise RuntimeError(self._fault())

    def _fault(self) -> str:
        self.process.wait()
        return last_line(self.messages.read_text(encoding="utf-8"))


class Command:
    """`qe-edge score`, a new process every round."""

    facts: dict[str, Any]

    def __init__(self, way: str, options: Namespace, folder: Path) -> None:
        self.facts = {}
        precision = way.removeprefix("qe-edge-").removesuffix(COMMAND)
        self.table, self.output = folder / "rows.tsv", folder / f"{way}.tsv"
        self.command = [sys.executable, "-m", "qe_edge", "score", str(self.table), "-o", str(self.output), "--quiet"]
        self.command += ["--device", options.device, "-m", str(made_bundle(options, options.shape, precision))]
        self.command += ["--quoting", "none"]

    def score(self) -> dict[str, Any]:
        """One round. Raises RuntimeError when the command fails."""
        started = time.perf_counter()
        done = subprocess.run(self.command, capture_output=True, text=True)
        seconds = time.perf_counter() - started
        if done.returncode:
            raise RuntimeError(last_line(done.stderr))
        return {"seconds": seconds}

    def close(self) -> None:
        """There is nothing to end."""


Runner = Worker | Command


def start(way: str, options: Namespace, folder: Path) -> Runner:
    """A way, ready to be timed."""
    return Command(way, options, folder) if way.endswith(COMMAND) else Worker(way, options, folder)


def summary(rows: int, rounds: dict[str, list[dict[str, Any]]], started: dict[str, Runner]) -> dict[str, Any]:
    """Medians of every way over the rounds so far."""
    ways: dict[str, Any] = {}
    for way, found in rounds.items():
        seconds = statistics.median(one["seconds"] for one in found)
        figures = {**started[way].facts, "rows_per_second": rows / seconds}
        if operations := figures.get("operations"):
            graph = statistics.median(one["graph_seconds"] for one in found)
            figures |= {"graph_rows_per_second": rows / graph, "graph_operations_per_second": operations / graph}
            figures["operations_per_second"] = operations / seconds
        ways[way] = {**figures, "rounds": found}
    ours = ways.get(OURS, {}).get("rows_per_second")
    for figures in ways.values():
        figures["qe_edge_is_faster"] = ours and ours / figures["rows_per_second"]
    return ways


def measure(options: Namespace, folder: Path) -> dict[str, Any]:
    """All rounds of all ways that are asked for."""
    rows = rows_of_test20(options.data, TINY_ROWS if options.tiny else None)
    write_table(folder / "rows.tsv", rows)
    runners: dict[str, Runner] = {}
    rounds: dict[str, list[dict[str, Any]]] = {}
    failures: dict[str, str] = {}
    result: dict[str, Any] = {"shape": options.shape, "device": options.device, "rows": len(rows)}
    try:
        for way in WAYS:
            if any(fnmatch(way, pattern) for pattern in options.only):
                try:
                    runners[way] = start(way, options, folder)
                    say(f"{way}: ready")
                except (RuntimeError, QeEdgeError) as error:
                    failures[way] = str(error)
                    say(f"{way}: {error}")
        for number in range(1, options.rounds + 1):
            for way in [way for way in runners if way not in failures]:
                try:
                    rounds.setdefault(way, []).append(runners[way].score())
                except RuntimeError as error:
                    failures[way] = str(error)
                    if not rounds[way]:
                        del rounds[way]
                    say(f"round {number}  {way}: {error}")
                    continue
                say(f"round {number}  {way}: {len(rows) / rounds[way][-1]['seconds']:.1f} rows/s")
            result |= {"rounds": number, "ways": summary(len(rows), rounds, runners), "failures": failures}
            write(options, result)
    finally:
        for runner in runners.values():
            runner.close()
    return result


def main() -> None:
    options_of = parser(__doc__)
    options_of.add_argument("--shape", default="base", help="decoder that is run (default base)")
    options_of.add_argument("--rounds", type=int, default=3)
    options_of.add_argument("--only", nargs="+", default=["*"], metavar="PATTERN", help="ways to run, as 'qe-edge*'")
    options = options_of.parse_args()
    with tempfile.TemporaryDirectory(prefix="qe-edge-gpu-") as folder:
        result = measure(options, Path(folder))
    finish(options, result)
    if result["failures"]:
        sys.exit(f"failed: {', '.join(result['failures'])}")


if __name__ == "__main__":
    run(main)
