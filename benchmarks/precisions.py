"""Every precision of one run: size, scores, speed, time to load and memory, as JSON and Markdown.

    python benchmarks/precisions.py --run RUN --data FOLDER --bundles FOLDER -o OUT [--rows 1000] [--rounds 3]

The run is exported once in each precision, into a folder each below --bundles; what lies there already is used as it
is. Spearman is that with human scores on MLQE-PE test20, the mean over the run's language pairs; the mean difference is
that of the export's gate, in points, from the trained model's scores on dev rows. Every measurement is a process of its
own, without torch; in each round all precisions take turns, and medians are given. A precision whose gate fails is
named with the reason.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from qe_edge import Row, Scorer
from qe_edge.bundle import PRECISIONS, open_bundle
from qe_edge.errors import QeEdgeError
from qe_edge.languages import parse_pair
from qe_edge.metrics import spearman

MIB = 1 << 20
WARM_UP = 8
"""Rows that are scored before the clock starts, written backwards: a scorer runs a row only once."""
TESTS = "test20.{}.df.short.tsv"
FIGURES = ("rows_per_second", "load_seconds", "peak_memory_mb")


def export_missing(run: Path, precisions: Sequence[str], bundles: Path) -> dict[str, str]:
    """Export the precisions that are not there yet; precision -> why it could not be."""
    missing = [precision for precision in precisions if not (bundles / precision).exists()]
    if not missing:
        return {}
    from qe_edge_export.export import bundle_spec, convert, prepare
    from qe_edge_export.writer import write_bundle
    from qe_edge_train.run import TOKENIZER_FILE

    prepared, refused = prepare(run, missing, print), {}
    for precision in missing:
        try:
            converted = convert(prepared, precision, print)
        except QeEdgeError as error:
            refused[precision] = str(error).partition(";")[0]
            continue
        spec = bundle_spec(prepared, precision, converted)
        write_bundle(bundles / precision, converted.graph, run / TOKENIZER_FILE, spec, force=False)
    return refused


def test_rows(run: Path, data: Path, most: int) -> list[dict[str, Any]]:
    """Test rows of the run's language pairs: pair, texts and human score of each."""
    from qe_edge.prompt import Prompt
    from qe_edge_train.data import load_examples
    from qe_edge_train.recipe import DataFile
    from qe_edge_train.run import open_run

    opened = open_run(run)
    prompt, column = Prompt(opened.recipe.head.prompt), opened.recipe.target.column
    rows: list[dict[str, Any]] = []
    for pair in opened.facts.language_pairs:
        file = DataFile(TESTS.format(pair.replace("-", "")), pair)
        examples, _ = load_examples([file], column, data, 1, prompt)
        rows += [{"pair": pair, "texts": example.texts, "score": example.score} for example in examples[:most]]
    return rows


def measure(bundle: Path, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Load a bundle and score the rows in this process."""
    items = [Row(tuple(row["texts"]), *parse_pair(row["pair"])) for row in rows]
    started = time.perf_counter()
    with Scorer.load(bundle, device="cpu") as scorer:
        loaded = time.perf_counter()
        others = [replace(row, texts=tuple(text[::-1] for text in row.texts)) for row in items[:WARM_UP]]
        list(scorer.score(others))
        warm = time.perf_counter()
        scores = [score.value for score in scorer.score(items)]
        seconds = time.perf_counter() - warm
    return {
        "scores": scores,
        "load_seconds": loaded - started,
        "rows_per_second": len(rows) / seconds,
        "peak_memory_mb": peak_memory_mb(),
    }


def peak_memory_mb() -> float:
    """Largest resident memory of this process (Linux). getrusage's counts that of the process which started it, too."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def measure_apart(bundle: Path, rows: Path) -> dict[str, Any]:
    """The same in a process of its own."""
    command = [sys.executable, __file__, "--measure", str(bundle), str(rows)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def mean_spearman(scores: Sequence[float], rows: Sequence[dict[str, Any]]) -> float:
    """Correlation with human scores, the mean over language pairs."""
    pairs, found, human = (
        np.array(each) for each in ([row["pair"] for row in rows], scores, [r["score"] for r in rows])
    )
    return float(np.mean([spearman(found[pairs == pair], human[pairs == pair]) for pair in dict.fromkeys(pairs)]))


def markdown(table: dict[str, dict[str, Any]]) -> str:
    lines = [
        "| precision | MiB | mean difference | Spearman | rows/s | load, s | peak memory, MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for precision, row in table.items():
        if "refused" in row:
            lines.append(f"| {precision} | - | - | - | - | - | {row['refused']} |")
            continue
        lines.append(
            f"| {precision} | {row['mib']:.1f} | {row['mean_difference']:.2f} | {row['spearman']:.4f} | "
            f"{row['rows_per_second']:.1f} | {row['load_seconds']:.2f} | {row['peak_memory_mb']:.0f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder of MLQE-PE")
    parser.add_argument("--bundles", type=Path, required=True, help="folder of the exports")
    parser.add_argument("-o", "--output", type=Path, required=True, help="without suffix: .json and .md are written")
    parser.add_argument("--precisions", nargs="+", default=PRECISIONS, choices=PRECISIONS)
    parser.add_argument("--rows", type=int, default=1000, help="most test rows of a language pair")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()

    refused = export_missing(arguments.run, arguments.precisions, arguments.bundles)
    rows = test_rows(arguments.run, arguments.data, arguments.rows)
    rows_file = arguments.output.with_suffix(".rows.json")
    rows_file.write_text(json.dumps(rows), encoding="utf-8")
    measured: dict[str, list[dict[str, Any]]] = {name: [] for name in arguments.precisions if name not in refused}
    for number in range(arguments.rounds):
        for precision, found in measured.items():
            found.append(measure_apart(arguments.bundles / precision, rows_file))
            print(f"round {number + 1}, {precision}: {found[-1]['rows_per_second']:.1f} rows/s", flush=True)
    rows_file.unlink()
    table: dict[str, dict[str, Any]] = {name: {"refused": why} for name, why in refused.items()}
    for precision, found in measured.items():
        bundle = open_bundle(arguments.bundles / precision)
        table[precision] = {
            "mib": bundle.size / MIB,
            "mean_difference": bundle.spec.gate["mean_difference"],
            "spearman": mean_spearman(found[0]["scores"], rows),
            **{name: statistics.median(one[name] for one in found) for name in FIGURES},
        }
    table = {name: table[name] for name in arguments.precisions}
    content = {"rows": len(rows), "rounds": arguments.rounds, "precisions": table}
    arguments.output.with_suffix(".json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    arguments.output.with_suffix(".md").write_text(markdown(table), encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(Path(sys.argv[2]), json.loads(Path(sys.argv[3]).read_text(encoding="utf-8")))))
    else:
        main()
