"""Weight-only layers: the runtime reads the blocks that were stored, and no row depends on another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from qe_edge_export.calibrate import CalibrationRows
from qe_edge_export.passes import quantise_weight_only, quantise_weights, simplify
from qe_edge_export.passes.blocks import quantise_blocks
from qe_edge_export.passes.linear import FLOAT, linears, required_constant

Run = Callable[..., dict[str, NDArray[Any]]]
Feeds = dict[str, NDArray[Any]]
Products = Callable[..., ir.Model]


def random_weight(depth: int, width: int) -> NDArray[np.float32]:
    return np.random.default_rng(depth).standard_normal((depth, width)).astype(np.float32)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("depth", [32, 64, 96, 40])  # 40 is padded; 1 and 3 blocks leave half a byte of zero points
def test_the_runtime_reads_the_blocks_that_were_stored(
    product_model: Products, run: Run, bits: int, depth: int
) -> None:
    weight = random_weight(depth, 24)
    model = product_model(weight)

    quantise_weights(model, bits)

    padded = np.pad(weight, ((0, -depth % 32), (0, 0)))
    expected = quantise_blocks(padded.T.copy(), bits).floats().T[:depth]
    found = run(model, {"x": np.eye(depth, dtype=np.float32)})["y0"]  # ones and zeros survive 8 bits
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert np.abs(found - weight).max() > 1e-3


@pytest.mark.parametrize(("bits", "error"), [(8, 0.02), (4, 0.12)])
def test_a_product_is_close_to_float32(product_model: Products, run: Run, bits: int, error: float) -> None:
    weight = random_weight(96, 64)
    x = np.random.default_rng(0).standard_normal((20, 96)).astype(np.float32)
    model = product_model(weight)

    quantise_weights(model, bits)

    exact = x @ weight
    assert 0 < np.linalg.norm(run(model, {"x": x})["y0"] - exact) / np.linalg.norm(exact) < error


def test_inputs_that_vary_together_are_made_use_of(product_model: Products, run: Run) -> None:
    weight = random_weight(64, 16)
    random = np.random.default_rng(4)
    x = (random.standard_normal((200, 8)) @ random.standard_normal((8, 64))).astype(np.float32)
    errors = []
    for products in (None, {"x": x.T @ x}):
        model = product_model(weight)
        quantise_weights(model, 4, products)
        errors.append(np.linalg.norm(run(model, {"x": x})["y0"] - x @ weight))
    assert errors[1] < 0.5 * errors[0]


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("count", [1, 2, 7])
def test_a_row_does_not_depend_on_its_neighbours(product_model: Products, run: Run, bits: int, count: int) -> None:
    random = np.random.default_rng(1)
    model = product_model(random_weight(64, 48))
    quantise_weights(model, bits)
    x = random.standard_normal((8, 64)).astype(np.float32)
    x[7] *= 1000  # a neighbour that would take all the range
    together = run(model, {"x": x})["y0"]
    np.testing.assert_allclose(run(model, {"x": x[:count]})["y0"], together[:count], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("bits", "expected"), [(8, 8.5), (4, 4.625)])
def test_a_weight_takes_its_bits_and_a_share_of_step_and_zero_point(
    product_model: Products, bits: int, expected: float
) -> None:
    model = product_model(random_weight(64, 48))
    quantise_weights(model, bits)
    stored = sum(required_constant(value).nbytes for value in model.graph.initializers.values())
    assert 8 * stored / (64 * 48) == expected


def test_a_layer_marked_to_stay_in_float_is_left_as_it_is(product_model: Products, run: Run) -> None:
    x = np.random.default_rng(3).standard_normal((3, 32)).astype(np.float32)
    weights = [random_weight(32, width) for width in (8, 4)]
    model = product_model(*weights)
    model.graph[1].metadata_props[FLOAT] = ""

    quantise_weights(model, 4)

    found = run(model, {"x": x})
    assert Counter(node.op_type for node in model.graph)["MatMul"] == 1
    np.testing.assert_allclose(found["y1"], x @ weights[1], rtol=1e-5, atol=1e-5)
    assert np.abs(found["y0"] - x @ weights[0]).max() > 1e-3


@pytest.mark.parametrize(("bits", "error"), [(8, 0.06), (4, 0.6)])
def test_a_whole_decoder_stays_close_and_batch_independent(
    family: ir.Model, run: Run, rows: CalibrationRows, cases: list[Feeds], bits: int, error: float
) -> None:
    simplify(family)
    before = [run(family, feeds)["state"] for feeds in cases]
    quantise_weight_only(family, rows, bits, embedding_bits=8)
    assert not linears(family), "a float product is left"
    for feeds, expected in zip(cases, before, strict=True):
        state = run(family, feeds)["state"]
        assert np.linalg.norm(state - expected) / np.linalg.norm(expected) < error
        for row in range(len(state)):
            alone = {**feeds, "tokens": feeds["tokens"][row : row + 1], "last": feeds["last"][row : row + 1]}
            np.testing.assert_allclose(run(family, alone)["state"][0], state[row], rtol=1e-4, atol=1e-5)
