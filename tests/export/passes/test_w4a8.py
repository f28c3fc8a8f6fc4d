"""W4A8: what is stored in 4 bits is expanded to the very integers that were meant, once, when the graph is loaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from qe_edge_export.calibrate import CalibrationRows
from qe_edge_export.passes import (
    quantise_linears,
    quantise_linears_to_4_bits,
    quantise_w4a8,
    quantise_w8a8,
    simplify,
)
from qe_edge_export.passes.blocks import Blocks, quantise_blocks
from qe_edge_export.passes.linear import FLOAT, linears, required_constant
from qe_edge_export.passes.w4a8 import pack
from qe_edge_export.passes.weight_only import weight_blocks

Run = Callable[..., dict[str, NDArray[Any]]]
Feeds = dict[str, NDArray[Any]]
Products = Callable[..., ir.Model]


def random_weight(depth: int, width: int) -> NDArray[np.float32]:
    return np.random.default_rng(depth).standard_normal((depth, width)).astype(np.float32)


def unrelated_inputs(depth: int) -> dict[str, NDArray[np.float32]]:
    """X^T X of inputs that do not vary together."""
    return {"x": np.eye(depth, dtype=np.float32)}


def test_a_worked_column() -> None:
    # one block: q = 0, 10, 15 around z = 5 with d = 2, so the weights are -10, 10, 20 and zeros
    integers = np.full((1, 32), 5, np.uint8)
    integers[0, :3] = 0, 10, 15
    packed = pack(Blocks(integers, np.array([[5]], np.uint8), np.array([[2]], np.float16)), 3)
    # 20 is the largest number, and the pair (-10, 10) is of two signs: c = 20 / 127 * 1.02; s = c / d, rounded .08032
    np.testing.assert_allclose(packed.step, [20 / 127 * 1.02], rtol=1e-6)
    np.testing.assert_allclose(packed.divisors, [[0.08032]], rtol=1e-4)
    # z / s = 62.2, 10 / s = 124.498, 15 / s = 186.7
    np.testing.assert_array_equal(packed.zeros, [[-62]])
    np.testing.assert_array_equal(packed.expanded(), [[-62], [124 - 62], [187 - 62]])


@pytest.mark.parametrize("tails", [1, 2, 30])
def test_expanded_weights_keep_to_the_limits_of_w8a8_and_to_their_blocks(tails: int) -> None:
    weight = np.random.default_rng(tails).standard_t(tails, (4000, 20)).astype(np.float32)
    weight[:, 0] = np.abs(weight[:, 0])
    weight[:, 1] = -np.abs(weight[:, 1])
    weight[:2000, 2] = 0
    blocks = quantise_blocks(weight.T.copy(), 4)

    packed = pack(blocks, len(weight))

    integers = packed.expanded().astype(int)
    np.testing.assert_allclose(integers * packed.step, blocks.floats().T, atol=1.1 * packed.step.max())
    assert np.abs(integers).max() <= 127
    for chosen in (integers.clip(min=0), -integers.clip(max=0)):
        assert (chosen[0::2] + chosen[1::2]).max() <= 128


@pytest.mark.parametrize("depth", [32, 96, 40])  # the last block of 40 is a part of one
def test_the_loaded_graph_multiplies_with_the_expanded_integers(product_model: Products, run: Run, depth: int) -> None:
    weight = random_weight(depth, 24)
    model = product_model(weight)

    quantise_linears_to_4_bits(model, unrelated_inputs(depth))

    packed = pack(weight_blocks(weight, unrelated_inputs(depth)["x"], 4), depth)
    found = run(model, {"x": np.eye(depth, dtype=np.float32)})["y0"]  # ones and zeros survive 8 bits
    np.testing.assert_allclose(found, packed.expanded() * packed.step, rtol=1e-5, atol=1e-6)
    assert np.linalg.norm(found - weight) < 0.12 * np.linalg.norm(weight)


def test_a_weight_takes_its_bits_and_a_share_of_divisor_zero_point_and_step(product_model: Products) -> None:
    model = product_model(random_weight(64, 48))
    quantise_linears_to_4_bits(model, unrelated_inputs(64))
    stored = sum(
        required_constant(value).nbytes if value.const_value.dtype.bitwidth > 4 else 64 * 48 // 2
        for value in model.graph.initializers.values()
        if value.const_value is not None and value.const_value.size > 1
    )
    assert 8 * stored / (64 * 48) == pytest.approx(4 + 16 / 32 + 8 / 32 + 32 / 64)


def test_a_layer_marked_to_stay_in_float_is_left_as_it_is(product_model: Products) -> None:
    model = product_model(random_weight(32, 8), random_weight(32, 4))
    model.graph[1].metadata_props[FLOAT] = ""

    quantise_linears_to_4_bits(model, unrelated_inputs(32))

    counts = Counter(node.op_type for node in model.graph)
    assert (counts["MatMul"], counts["MatMulIntegerToFloat"]) == (1, 1)


def loaded(model: ir.Model, folder: Path) -> onnx.ModelProto:
    """The graph as ONNX Runtime runs it, with the settings of `qe_edge.scoring.graph`."""
    folder.mkdir()
    ir.save(model, folder / "model.onnx")
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(folder / "loaded.onnx")
    ort.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
    return onnx.load(folder / "loaded.onnx")


def test_nothing_of_the_expansion_is_left_in_the_loaded_graph(
    decoder: Callable[[str], ir.Model], rows: CalibrationRows, tmp_path: Path
) -> None:
    four, eight = decoder("llama"), decoder("llama")
    quantise_w4a8(four, rows)
    quantise_w8a8(eight, rows)
    assert Counter(node.op_type for node in four.graph) != Counter(node.op_type for node in eight.graph)

    found, expected = loaded(four, tmp_path / "w4a8").graph, loaded(eight, tmp_path / "w8a8").graph

    assert Counter(node.op_type for node in found.node) == Counter(node.op_type for node in expected.node)
    constants = {constant.name: constant for constant in found.initializer}
    products = [node for node in found.node if node.op_type == "MatMulIntegerToFloat"]
    assert len(products) == 14
    assert {constants[node.input[1]].data_type for node in products} == {onnx.TensorProto.INT8}


def test_a_whole_decoder_stays_close_and_batch_independent(
    family: ir.Model, run: Run, rows: CalibrationRows, cases: list[Feeds]
) -> None:
    simplify(family)
    before = [run(family, feeds)["state"] for feeds in cases]
    quantise_w4a8(family, rows, embedding_bits=8)
    assert not linears(family), "a float product is left"
    for feeds, expected in zip(cases, before, strict=True):
        state = run(family, feeds)["state"]
        assert np.linalg.norm(state - expected) / np.linalg.norm(expected) < 0.7
        for row in range(len(state)):
            alone = {**feeds, "tokens": feeds["tokens"][row : row + 1], "last": feeds["last"][row : row + 1]}
            np.testing.assert_allclose(run(family, alone)["state"][0], state[row], rtol=1e-4, atol=1e-5)


def test_the_same_products_as_w8a8_come_closer_only_by_their_weights(product_model: Products, run: Run) -> None:
    weight = random_weight(96, 64)
    x = np.random.default_rng(0).standard_normal((20, 96)).astype(np.float32)
    errors = []
    for quantise in (quantise_linears, lambda model: quantise_linears_to_4_bits(model, {"x": x.T @ x})):
        model = product_model(weight)
        quantise(model)
        errors.append(np.linalg.norm(run(model, {"x": x})["y0"] - x @ weight) / np.linalg.norm(x @ weight))
    assert 0 < errors[0] < 0.015 < errors[1] < 0.12
