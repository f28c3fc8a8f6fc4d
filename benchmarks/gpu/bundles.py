"""Bundles to measure: a short training run on a shape, exported in several precisions.

    python -m benchmarks.gpu.bundles base
    python -m benchmarks.gpu.bundles 1.5b --precisions fp16 int4

`base` is trained by the embedded recipe on a few rows. Shapes with random weights get a head and no adapter: their
scores mean nothing, their speed and memory are those of a trained model. The export is that of qe-edge but for two
things: what the gate measures is recorded and refuses nothing, since a few steps teach little, and no head is refitted;
and weights that are random are rounded to the nearest number, without error feedback.
"""

from __future__ import annotations

import time
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

from benchmarks.gpu.plain_graph import make_plain_graph
from benchmarks.gpu.recipe import embedded_on, first_rows
from benchmarks.gpu.step import bundle_folder, finish, parser, run, say, torch_device, write
from qe_edge_export.export import NONE, WEIGHT_BITS, Converted, Prepared, bundle_spec, prepare
from qe_edge_export.gate import measure
from qe_edge_export.graph import attach_head
from qe_edge_export.passes import quantise_embedding, quantise_weight_only, quantise_weights, to_half
from qe_edge_export.samples import CalibrationRows, SampleSizes, opened
from qe_edge_export.writer import write_bundle
from qe_edge_train.recipe import Adapter, Recipe
from qe_edge_train.run import FACTS_FILE, TOKENIZER_FILE, open_run
from qe_edge_train.session import train_run

PRECISIONS = {"base": ("fp16", "int4", "fp32", "int8"), "tiny": ("fp16", "int4", "fp32", "int8")}
"""By shape; of all others LARGE_PRECISIONS."""
LARGE_PRECISIONS = ("fp16", "int4")
EMBEDDING_BITS = 4
"""of bundles in integers, as qe-edge exports them"""
TRAIN_ROWS, DEV_ROWS = 96, 24
"""of each table"""
SIZES = SampleSizes(calibration=2, refit=1, gate=4)


def run_recipe(options: Namespace, shape: str) -> Recipe:
    """What is trained on a shape: all seven pairs where weights are learnt, one where they are random."""
    recipe = embedded_on(options, shape, quantised=False)
    random_weights = shape not in PRECISIONS
    tables = 1 if random_weights else len(recipe.train)
    return replace(
        recipe,
        adapter=Adapter(kind="none") if random_weights else recipe.adapter,
        train=first_rows(recipe.train[:tables], TRAIN_ROWS),
        dev=first_rows(recipe.dev[:tables], DEV_ROWS),
    )


def converted(prepared: Prepared, precision: str, feedback: bool) -> Converted:
    """The graph in one precision with the trained head, and what the gate says of it.

    feedback: whether 4-bit weights are rounded with error feedback.
    """
    graph, samples = prepared.graph.clone(), prepared.samples
    measured = CalibrationRows.of(samples.calibration, prepared.shape)
    if precision == "fp16":
        to_half(graph, measured)
    elif precision in WEIGHT_BITS and feedback:
        quantise_weight_only(graph, measured, WEIGHT_BITS[precision], EMBEDDING_BITS)
    elif precision in WEIGHT_BITS:
        quantise_weights(graph, WEIGHT_BITS[precision])
        quantise_embedding(graph, EMBEDDING_BITS, ())
    attach_head(graph, prepared.head)
    rows = CalibrationRows.of(samples.gate, prepared.shape)
    with opened(graph, prepared.shape) as session:
        return Converted(graph, measure(session, rows, samples.gate, prepared.trained), NONE)


def main() -> None:
    options_of = parser(__doc__)
    options_of.add_argument("shape", choices=("base", "tiny", "1.5b", "3b", "8b"))
    options_of.add_argument("--precisions", nargs="+", choices=PRECISIONS["base"], help="all of the shape if not given")
    options = options_of.parse_args()
    shape: str = options.shape
    device = torch_device(options.device)
    seconds: dict[str, float] = {}
    result = {"shape": shape, "seconds": seconds}
    started = time.perf_counter()

    def note(what: str) -> None:
        seconds[what] = time.perf_counter() - started
        write(options, result)

    folder: Path = options.work / "runs" / shape
    if not (folder / FACTS_FILE).is_file():
        folder.parent.mkdir(parents=True, exist_ok=True)
        train_run(run_recipe(options, shape), folder, options.data, device, say)
    note("trained")
    wanted = options.precisions or PRECISIONS.get(shape, LARGE_PRECISIONS)
    missing = [precision for precision in wanted if not bundle_folder(options, shape, precision).is_dir()]
    if missing:
        # float32 asks for no rows to refit a head on
        prepared = prepare(folder, ["fp32"], say, options.data, SIZES)
        note("prepared")
        for precision in missing:
            found = converted(prepared, precision, feedback=shape in PRECISIONS)
            spec = bundle_spec(prepared, precision, found)
            target = bundle_folder(options, shape, precision)
            bundle = write_bundle(target, found.graph, folder / TOKENIZER_FILE, spec, force=False)
            say(f"{bundle.folder}: {bundle.size / (1 << 20):.0f} MiB")
            note(precision)
    if shape == "base":
        make_plain_graph(open_run(folder), options.work)
        note("plain graph")
    finish(options, result)


if __name__ == "__main__":
    run(main)
