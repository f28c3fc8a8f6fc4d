"""qe-edge itself, with the embedded bundle.

command   `python -m qe_edge score`, from process start to the written file
scorer    `qe_edge.Scorer` in a running process: tokens, prefix and graph
states    the base in w8a8 by the same export, whole prompts: shows the error of the state, not the speed

    python -m benchmarks.peers.run_qe_edge --variant command
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers.harness import (
    CUT_BLOCKS,
    QE_EDGE_MODEL,
    ROWS_FILE,
    TABLE_FILE,
    WARM_UP,
    Floats,
    Options,
    Step,
    Timed,
    Variant,
    answer,
    pad,
    parse,
    report,
    spread,
)
from qe_edge import Row, Scorer
from qe_edge.languages import parse_pair
from qe_edge.scoring.graph import Graph, KeyValueShape

PEER = "qe-edge"
PACKAGES = ("qe-edge", "onnxruntime")
STATES = {"states": Variant("w8a8")}
VARIANTS = ("command", "scorer", *STATES)


def load_states(variant: Variant, options: Options) -> Step:
    """The quantised graph of the base, ready to run with an empty prefix."""
    config = json.loads((options.base / "config.json").read_text(encoding="utf-8"))
    shape = KeyValueShape(CUT_BLOCKS, config["num_key_value_heads"], config["head_dim"])
    graph = Graph(options.work / QE_EDGE_MODEL, shape, threads=options.threads)
    nothing = graph.prefix([])

    def step(batch: Sequence[Sequence[int]]) -> Floats:
        states: Floats = graph.run(nothing, *pad(batch), ["state_0"])[0]
        return states

    return step


def time_scorer(options: Options) -> Timed:
    """Score the rows in this process. It is warmed up on other rows, because a Scorer runs a row only once."""
    data = json.loads((options.work / ROWS_FILE).read_text(encoding="utf-8"))
    languages = parse_pair(data["pair"])
    texts = spread(data["texts"], options.rows)
    started = time.perf_counter()
    scorer = Scorer.load(device="cpu", threads=options.threads)
    loaded = time.perf_counter()
    list(scorer.score([Row.translation(target, source, *languages) for source, target in texts[:WARM_UP]]))
    warm = time.perf_counter()
    scores = list(scorer.score([Row.translation(source, target, *languages) for source, target in texts]))
    seconds = time.perf_counter() - warm
    if any(score.value is None for score in scores):
        raise ValueError(f"{PEER} scorer: rows without a score")
    return Timed(loaded - started, warm - loaded, seconds)


def time_command(options: Options) -> Timed:
    """Run the whole command; nothing is loaded before."""
    pair = json.loads((options.work / ROWS_FILE).read_text(encoding="utf-8"))["pair"]
    header, *lines = (options.work / TABLE_FILE).read_text(encoding="utf-8").removesuffix("\n").split("\n")
    with tempfile.TemporaryDirectory() as folder:
        table, output = Path(folder) / "rows.tsv", Path(folder) / "scored.tsv"
        table.write_text("\n".join([header, *spread(lines, options.rows)]) + "\n", encoding="utf-8")
        command = [sys.executable, "-m", "qe_edge", "score", str(table), "-o", str(output), "--lp", pair]
        command += ["--device", "cpu", "--threads", str(options.threads), "--quoting", "none", "--quiet"]
        started = time.perf_counter()
        subprocess.run(command, check=True)
        return Timed(0.0, 0.0, time.perf_counter() - started)


def main() -> None:
    options = parse(PEER, VARIANTS)
    if options.variant in STATES:
        answer(PEER, STATES, load_states, PACKAGES)
    elif options.variant == "scorer":
        report(PEER, options, time_scorer(options), PACKAGES)
    else:
        report(PEER, options, time_command(options), PACKAGES, resource.RUSAGE_CHILDREN)


if __name__ == "__main__":
    main()
