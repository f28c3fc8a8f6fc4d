"""Graphs of decoders whose upper blocks run on the last position alone, for every supported family."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from numpy.typing import NDArray

from qe_edge.scoring.graph import pad
from qe_edge.verification.model import check_model
from qe_edge_export.calibrate import activation_ranges
from qe_edge_export.graph import attach_head, export_states, key_value_shape
from qe_edge_export.passes import quantise_w8a8, simplify, smooth
from qe_edge_export.passes.linear import linears, linears_by_input
from qe_edge_export.passes.sizes import LENGTH
from qe_edge_export.passes.smoothing import fold_for, is_normalised
from qe_edge_export.samples import CalibrationRows, PairRows, opened
from qe_edge_export.writer import save_model
from qe_edge_train.decoder import FAMILIES
from qe_edge_train.tapped import TappedRegressor

TinyRegressor = Callable[..., TappedRegressor]
LastPosition = Callable[[str], tuple[TappedRegressor, ir.Model]]
PREFIX = [5, 40, 17, 8]
BODIES = [[3, 77, 12, 9, 61, 30], [24, 11, 80], [7]]
SCALE = 20
"""Points of the score scale in one standard unit, in `tiny_regressor`."""


def upper(whole: TappedRegressor, full: int) -> TappedRegressor:
    return TappedRegressor(whole.decoder, whole.head, full).requires_grad_(False).eval()


@pytest.fixture(scope="module")
def last_position(tiny_regressor: TinyRegressor) -> LastPosition:
    """(family) -> its decoder with one block in full and two above it, and a graph of its own; exported once."""

    @cache
    def exported(family: str) -> tuple[TappedRegressor, ir.Model]:
        model = upper(tiny_regressor(family, 1), 1)
        return model, export_states(model)

    def build(family: str) -> tuple[TappedRegressor, ir.Model]:
        model, states = exported(family)
        return model, states.clone()

    return build


def scores(model: TappedRegressor) -> NDArray[np.float32]:
    tokens, last = (torch.from_numpy(array) for array in pad(BODIES))
    with torch.no_grad():
        found: NDArray[np.float32] = model(tokens, last, model.prefix(torch.tensor([PREFIX])))[0].numpy()
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_two_of_three_blocks_in_full_are_the_whole_decoder(tiny_regressor: TinyRegressor, family: str) -> None:
    whole = tiny_regressor(family, 1)

    assert np.abs(scores(upper(whole, 2)) - scores(whole)).max() < 1e-4 * SCALE
    assert np.abs(scores(upper(whole, 1)) - scores(whole)).max() > 1e-2 * SCALE


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
def test_a_norm_that_several_upper_blocks_share_is_one_node_and_fit_for_a_bundle(
    last_position: LastPosition, tmp_path: Path, family: str
) -> None:
    model, onnx = last_position(family)
    before = Counter(node.op_type for node in onnx.graph)
    rows = CalibrationRows((PairRows(PREFIX, BODIES),), key_value_shape(onnx))
    expected = rows.states(onnx)

    simplify(onnx)

    after = Counter(node.op_type for node in onnx.graph)
    assert (before["Reciprocal"], after["Reciprocal"]) == (1, 0)
    assert after["RMSNormalization"] == before["RMSNormalization"] + 1
    np.testing.assert_allclose(rows.states(onnx), expected, rtol=1e-5, atol=1e-5)
    keys = linears(onnx)[7].input  # after the seven linear maps of the first block
    assert is_normalised(keys)
    attach_head(onnx, model.head)
    save_model(onnx, tmp_path)
    assert " nodes of " in check_model(tmp_path / "model.onnx", tmp_path / "model.onnx.data")


@pytest.mark.parametrize("family", ["llama", "phi3"])  # maps apart and fused; exporting the others adds a minute
def test_the_graph_scores_as_the_module_does_and_runs_upper_blocks_once_a_row(
    last_position: LastPosition, family: str
) -> None:
    model, onnx = last_position(family)
    simplify(onnx)
    on_all = [linear for linear in linears(onnx) if LENGTH in map(str, linear.output.shape or ())]
    attach_head(onnx, model.head)

    with opened(onnx, key_value_shape(onnx)) as graph:
        found = graph.run(graph.prefix(PREFIX), *pad(BODIES))[0]
        alone = [graph.run(graph.prefix([]), *pad([[*PREFIX, *body]]))[0][0] for body in BODIES]

    assert np.abs(found - scores(model)).max() < 1e-4 * SCALE
    assert np.abs(np.array(alone) - found).max() < 1e-4 * SCALE
    fused = family == "phi3"  # one product for queries, keys and values, one for gate and up
    assert len(on_all) == (4 + 2 if fused else 7 + 2 * 2)


def test_what_upper_blocks_take_keys_from_is_smoothed_too(last_position: LastPosition) -> None:
    _, onnx = last_position("llama")
    simplify(onnx)
    rows = CalibrationRows((PairRows(PREFIX, BODIES),), key_value_shape(onnx))
    expected = rows.states(onnx)

    folds = {value: fold_for(value, group) for value, group in linears_by_input(onnx).items()}
    smooth(onnx, activation_ranges(onnx, rows, [str(value.name) for value in folds]))

    unsmoothed = [value for value, fold in folds.items() if fold is None]
    assert len(folds) == 4 + 2 * (1 + 4)  # keys and values read an input of their own
    assert len(unsmoothed) == 3  # what the three output projections read
    np.testing.assert_allclose(rows.states(onnx), expected, rtol=1e-4, atol=1e-4)


def test_eight_bits_keep_the_scores(last_position: LastPosition) -> None:
    _, onnx = last_position("llama")
    simplify(onnx)
    rows = CalibrationRows((PairRows(PREFIX, BODIES),), key_value_shape(onnx))
    expected = rows.states(onnx)[:, 0]

    quantise_w8a8(onnx, rows, embedding_bits=8)

    assert not linears(onnx)
    error = np.abs(rows.states(onnx)[:, 0] - expected).mean() / expected.std()
    assert 1e-5 < error < 0.05
