"""One step for all tokens of an activation: where, how large, and what it costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from qe_edge_export.calibrate import CalibrationRows, activation_ranges, token_peaks
from qe_edge_export.passes import move_token_scales, quantise_linears, simplify, smooth
from qe_edge_export.passes.fixed_steps import FEWEST_TOKENS, fixed_steps, step_for
from qe_edge_export.passes.linear import linears_by_input, operand
from qe_edge_export.passes.smoothing import NORMS, is_normalised

Rows = Callable[[list[list[int]]], CalibrationRows]
Run = Callable[..., dict[str, NDArray[Any]]]
Feeds = dict[str, NDArray[Any]]


@pytest.fixture
def many(rows_of: Rows) -> CalibrationRows:
    """Enough random ids for fixed steps: some 1200 tokens."""
    random = np.random.default_rng(5)
    return rows_of([random.integers(0, 40, 17).tolist() for _ in range(60)])


def names(model: ir.Model) -> tuple[set[str], set[str]]:
    """What linear layers read: out of a normalisation, and other."""
    values = list(linears_by_input(model))
    normalised = {str(value.name) for value in values if is_normalised(value)}
    return normalised, {str(value.name) for value in values} - normalised


def token_scaled(model: ir.Model) -> int:
    """Multiplications of a product by what a Div gives, the steps of its tokens."""
    found = 0
    for node in model.graph:
        makers = [operand(node, index).producer() for index in (0, 1)] if node.op_type == "Mul" else []
        found += [maker.op_type for maker in makers if maker is not None] == ["MatMulIntegerToFloat", "Div"]
    return found


def test_norms_of_every_family_are_found(family: ir.Model) -> None:
    simplify(family)
    normalised, others = names(family)
    assert normalised
    for value in linears_by_input(family):
        producer = value.producer()
        assert producer is not None
        if producer.op_type in NORMS:
            assert value.name in normalised
    assert len(others) == 2 * 2  # what the output and down projections of both blocks read


def test_every_norm_of_a_decoder_has_one_step_the_largest_of_its_tokens(
    decoder: Callable[[str], ir.Model], many: CalibrationRows
) -> None:
    model = decoder("llama")
    simplify(model)
    smooth(model, activation_ranges(model, many, [str(value.name) for value in linears_by_input(model)]))

    steps = fixed_steps(model, many.whole_prompts())

    normalised, _ = names(model)
    peaks = token_peaks(model, many.whole_prompts(), sorted(normalised))
    assert {len(each) for each in peaks.values()} == {60 * 20}  # the prefix's three tokens in every row
    alike = {name for name, each in peaks.items() if each.max() <= 2.3 * np.median(each)}
    assert steps.keys() == alike
    assert steps
    for name, step in steps.items():
        assert step == pytest.approx(float(peaks[name].max()) / 127)


def test_alike_are_many_tokens_of_which_none_is_much_larger_than_most() -> None:
    peaks = np.concatenate([np.ones(FEWEST_TOKENS - 2), [0.1, 2.2]]).astype(np.float32)
    assert step_for(peaks) == pytest.approx(2.2 / 127)
    assert step_for(peaks[1:]) is None  # one too few
    assert step_for(np.append(peaks, np.float32(2.4))) is None
    assert step_for(np.zeros_like(peaks)) is None


def test_a_fixed_step_is_what_the_graph_divides_by(
    decoder: Callable[[str], ir.Model], run: Run, cases: list[Feeds], many: CalibrationRows
) -> None:
    model = decoder("llama")
    simplify(model)
    before = [run(model, feeds)["state"] for feeds in cases]
    normalised, others = names(model)
    peaks = token_peaks(model, many, sorted(normalised))
    # twice the largest: these inputs are no text, and none of their tokens may be clipped
    steps = {name: 2 * float(each.max()) / 127 for name, each in peaks.items()}

    quantise_linears(model, steps=steps)
    move_token_scales(model)

    fixed = [node for node in model.graph if node.op_type == "QuantizeLinear" and "block_size" not in node.attributes]
    by_token = [node for node in model.graph if node.op_type == "QuantizeLinear" and "block_size" in node.attributes]
    assert {operand(node, 0).name for node in fixed} == normalised
    assert {operand(node, 0).name for node in by_token} == others
    products = [reader for node in fixed for reader in node.outputs[0].consumers()]
    assert {node.op_type for node in products} == {"MatMulIntegerToFloat"}
    assert all(operand(product, 2) is operand(node, 1) for node in fixed for product in node.outputs[0].consumers())
    assert token_scaled(model) == len(others)  # their products alone are multiplied by the steps of tokens
    for feeds, expected in zip(cases, before, strict=True):
        state = run(model, feeds)["state"]
        assert np.linalg.norm(state - expected) / np.linalg.norm(expected) < 0.1


def test_a_token_that_is_too_large_is_clipped_and_no_other_is_touched(run: Run) -> None:
    model = one_product()
    quantise_linears(model, steps={"x": 1.0})
    x = np.array([[1, -2, 3, 4], [500, -500, 1, 0]], np.float32)

    found = run(model, {"x": x})["y"]

    weight = np.eye(4, dtype=np.float32)
    np.testing.assert_allclose(found, np.clip(x, -128, 127) @ weight, rtol=1e-6)
    np.testing.assert_array_equal(found[0], run(model, {"x": x[:1]})["y"][0])


def one_product() -> ir.Model:
    """y = x I, with x [n, 4]."""
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["n", 4]))
    weight = ir.Value(name="w", const_value=ir.tensor(np.eye(4, dtype=np.float32), name="w"))
    weight.type, weight.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([4, 4])
    node = ir.node("MatMul", [x, weight])
    y = node.outputs[0]
    y.name, y.type, y.shape = "y", ir.TensorType(ir.DataType.FLOAT), ir.Shape(["n", 4])
    graph = ir.Graph([x], [y], nodes=[node], initializers=[weight], opset_imports={"": 23}, name="one")
    return ir.Model(graph, ir_version=10)
