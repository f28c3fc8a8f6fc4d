"""The graph that `qe-edge export` makes of the base in w8a8, up to the state that the embedded bundle reads.

It tells the error of that precision: the embedded bundle holds trained weights, whose states cannot be compared with
those of the base.

    python -m benchmarks.peers.make_qe_edge
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import onnx_ir as ir
import torch

from benchmarks.peers.harness import BASE, COMPARED, CUT_BLOCKS, QE_EDGE_MODEL, ROWS_FILE, WORK, new_folder
from qe_edge.bundle import WEIGHTS_FILE
from qe_edge_export.graph import export_states, key_value_shape
from qe_edge_export.passes import most_frequent, quantise_w8a8, simplify
from qe_edge_export.samples import CalibrationRows, PairRows
from qe_edge_train.decoder import cut_decoder, load_decoder
from qe_edge_train.heads import HeadOptions, RegressionHead
from qe_edge_train.tapped import TappedRegressor

CALIBRATION = 84
"""Rows on which activations are measured, as many as an export takes; none of those whose states are compared."""


def write_graph(base: Path, prompts: list[list[int]], path: Path) -> None:
    """Export, simplify and quantise the cut base."""
    decoder = load_decoder(str(base), torch.float32)
    decoder = cut_decoder(decoder, decoder.config.num_hidden_layers - CUT_BLOCKS + 1)
    head = RegressionHead(HeadOptions(decoder.config.hidden_size, layer_norm=False, bias=False))
    graph = export_states(TappedRegressor(decoder, head).eval())
    simplify(graph)
    rows = prompts[COMPARED : COMPARED + CALIBRATION]
    calibration = CalibrationRows((PairRows([], rows),), key_value_shape(graph))
    quantise_w8a8(graph, calibration, frequent=most_frequent(prompts[COMPARED:]))
    with new_folder(path.parent) as part:
        ir.save(graph, part / path.name, external_data=WEIGHTS_FILE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, default=BASE)
    parser.add_argument("--work", type=Path, default=WORK)
    arguments = parser.parse_args()
    path = arguments.work / QE_EDGE_MODEL
    if not path.is_file():
        prompts = json.loads((arguments.work / ROWS_FILE).read_text(encoding="utf-8"))["prompts"]
        write_graph(arguments.base, prompts, path)


if __name__ == "__main__":
    main()
