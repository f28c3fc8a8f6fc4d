"""W8A8 products: exact integers, one step per token and per output channel, no row depends on another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from qe_edge_export.calibrate import CalibrationRows
from qe_edge_export.passes import quantise_linears, quantise_w8a8, simplify
from qe_edge_export.passes.linear import FLOAT, linears
from qe_edge_export.passes.w8a8 import quantise_weight

Run = Callable[..., dict[str, NDArray[Any]]]
Feeds = dict[str, NDArray[Any]]
Products = Callable[..., ir.Model]


def test_a_worked_product(product_model: Products, run: Run) -> None:
    weight = np.array([[127, 1], [0, -127], [-254, 2.5]], np.float32)
    x = np.array([[127, -63.5, 0.5], [4, -1, 0]], np.float32)
    model = product_model(weight)
    quantise_linears(model)
    inside = next(str(node.outputs[0].name) for node in model.graph if node.op_type == "QuantizeLinear")
    found = run(model, {"x": x}, [inside])
    # row 0: m = 127, so q = x with halves to even: -63.5 -> -64, 0.5 -> 0
    # row 1: m = 4, q = x * 31.75: 127, -31.75 -> -32, 0; stored plus 128
    np.testing.assert_array_equal(found[inside], np.array([[255, 64, 128], [255, 96, 128]], np.uint8))
    # steps of the columns: 254 / 127 = 2 and 127 / 127 = 1; integers 63.5 -> 64, 0, -127 and 1, -127, 2.5 -> 2
    # y00 = 127 * 64 * 2; y01 = 127 * 1 + -64 * -127; y10 = 127 * 64 * 2 * 4/127; y11 = (127 + 32 * 127) * 4/127
    np.testing.assert_allclose(found["y0"], [[16256, 8255], [512, 132]], rtol=1e-6)


def test_weights_on_a_worked_example() -> None:
    weight = np.array([[127, 1, 0], [0, -127, 0], [-254, 2.5, 0]], np.float32)
    integers, step = quantise_weight(weight)
    np.testing.assert_array_equal(integers, np.array([[64, 1, 0], [0, -127, 0], [-127, 2, 0]], np.int8))
    np.testing.assert_allclose(step, [2, 1, 1], rtol=1e-6)  # a column of zeros has any step


def test_neighbours_of_one_sign_add_up_to_128_at_most() -> None:
    # 100 + 53 = 153 makes the step 153 / 127.5 = 1.2; 100 and -53 do not add up: 100 / 127; 53 and 100 in rows 1 and 2
    # are no pair
    weight = np.array([[100, 100, 0], [53, -53, 53], [0, 0, 100]], np.float32)
    integers, step = quantise_weight(weight)
    np.testing.assert_array_equal(integers, [[83, 127, 0], [44, -67, 67], [0, 0, 127]])
    np.testing.assert_allclose(step, [1.2, 100 / 127, 100 / 127], rtol=1e-6)


def test_pairs_of_products_fit_into_16_bits() -> None:
    weight = np.random.default_rng(0).standard_t(2, (4000, 50)).astype(np.float32)  # heavy tails
    integers = quantise_weight(weight)[0].astype(int)
    for chosen in (integers.clip(min=0), integers.clip(max=0)):
        pairs = 255 * (chosen[0::2] + chosen[1::2])
        assert pairs.min() >= -(2**15)
        assert pairs.max() < 2**15


def test_a_row_of_zeros_gives_zeros(product_model: Products, run: Run) -> None:
    model = product_model(np.array([[1.0, 2], [3, 4]], np.float32))
    quantise_linears(model)
    np.testing.assert_array_equal(run(model, {"x": np.zeros((2, 2), np.float32)})["y0"], np.zeros((2, 2)))


def test_a_product_is_within_one_percent_of_float32(product_model: Products, run: Run) -> None:
    random = np.random.default_rng(0)
    weight = random.standard_normal((96, 64)).astype(np.float32)
    x = random.standard_normal((20, 96)).astype(np.float32)
    model = product_model(weight)
    quantise_linears(model)
    exact = x @ weight
    error = np.linalg.norm(run(model, {"x": x})["y0"] - exact) / np.linalg.norm(exact)
    assert 0 < error < 0.015


@pytest.mark.parametrize("count", [1, 2, 7])
def test_a_row_does_not_depend_on_its_neighbours(product_model: Products, run: Run, count: int) -> None:
    random = np.random.default_rng(1)
    model = product_model(random.standard_normal((64, 48)).astype(np.float32))
    quantise_linears(model)
    x = random.standard_normal((8, 64)).astype(np.float32)
    x[7] *= 1000  # a neighbour that would take all the range
    together = run(model, {"x": x})["y0"]
    np.testing.assert_array_equal(run(model, {"x": x[:count]})["y0"], together[:count])


def test_layers_that_read_one_activation_share_its_quantised_form(product_model: Products, run: Run) -> None:
    random = np.random.default_rng(2)
    weights = [random.standard_normal((16, width)).astype(np.float32) for width in (8, 4)]
    x = random.standard_normal((3, 16)).astype(np.float32)
    model = product_model(*weights)
    quantise_linears(model)
    counts = Counter(node.op_type for node in model.graph)
    assert counts["QuantizeLinear"] == counts["ReduceMax"] == 1
    assert counts["MatMulIntegerToFloat"] == 2
    found = run(model, {"x": x})
    for i, weight in enumerate(weights):
        alone = product_model(weight)
        quantise_linears(alone)
        np.testing.assert_array_equal(found[f"y{i}"], run(alone, {"x": x})["y0"])


def test_a_layer_marked_to_stay_in_float_is_left_as_it_is(product_model: Products, run: Run) -> None:
    random = np.random.default_rng(3)
    x = random.standard_normal((3, 16)).astype(np.float32)
    weights = [random.standard_normal((16, width)).astype(np.float32) for width in (8, 4)]
    model = product_model(*weights)
    model.graph[1].metadata_props[FLOAT] = ""
    quantise_linears(model)
    found = run(model, {"x": x})
    assert Counter(node.op_type for node in model.graph)["MatMul"] == 1
    np.testing.assert_allclose(found["y1"], x @ weights[1], rtol=1e-5, atol=1e-5)
    assert np.abs(found["y0"] - x @ weights[0]).max() > 1e-3


def test_a_whole_decoder_in_w8a8_stays_close_and_batch_independent(
    family: ir.Model, run: Run, rows: CalibrationRows, cases: list[Feeds]
) -> None:
    simplify(family)
    before = [run(family, feeds)["state"] for feeds in cases]
    quantise_w8a8(family, rows, embedding_bits=8)
    assert not linears(family), "a float product is left"
    for feeds, expected in zip(cases, before, strict=True):
        state = run(family, feeds)["state"]
        assert np.linalg.norm(state - expected) / np.linalg.norm(expected) < 0.1
        for row in range(len(state)):
            alone = {**feeds, "tokens": feeds["tokens"][row : row + 1], "last": feeds["last"][row : row + 1]}
            np.testing.assert_allclose(run(family, alone)["state"][0], state[row], rtol=1e-4, atol=1e-5)
