"""Smoothing changes weights and norms, and nothing that the graph computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from qe_edge_export.calibrate import CalibrationRows, activation_ranges
from qe_edge_export.passes import simplify, smooth
from qe_edge_export.passes.linear import (
    add_constant,
    linears,
    linears_by_input,
    operand,
    required_constant,
    set_constant,
)
from qe_edge_export.passes.smoothing import fold_for, smoothing_factor

Decoders = Callable[[str], ir.Model]
Run = Callable[..., dict[str, NDArray[Any]]]
Feeds = dict[str, NDArray[Any]]


def activations(model: ir.Model) -> list[str]:
    return [str(value.name) for value in linears_by_input(model)]


def test_the_factor_on_a_worked_example() -> None:
    # channel maxima: x 16, 1; |W| over both layers 1, 4. With a = .5: s = 4 / 1, 1 / 2; geometric mean sqrt(2)
    first = np.array([[1.0, -0.5], [2, 0]], np.float32)
    second = np.array([[0.25], [-4]], np.float32)
    factor = smoothing_factor(np.array([16, 1], np.float32), [first, second], 0.5)
    np.testing.assert_allclose(factor, [4 / 2**0.5, 0.5 / 2**0.5], rtol=1e-6)


def test_a_dead_channel_is_left_alone() -> None:
    # the first is never active, the second has no weights; the live ones are 4 and 1 over their mean 2
    activation = np.array([0, 3, 16, 1], np.float32)
    weight = np.array([[1], [0], [1], [1]], np.float32)
    np.testing.assert_allclose(smoothing_factor(activation, [weight], 0.5), [1, 1, 2, 0.5], rtol=1e-6)


@pytest.mark.parametrize("simplified", [False, True])
def test_no_family_computes_anything_else_after_smoothing(
    simplified: bool, family: ir.Model, run: Run, rows: CalibrationRows, cases: list[Feeds]
) -> None:
    if simplified:
        simplify(family)
    before = [run(family, feeds) for feeds in cases]
    smooth(family, activation_ranges(family, rows, activations(family)), 0.7)
    for feeds, expected in zip(cases, before, strict=True):
        for name, value in run(family, feeds).items():
            error = np.linalg.norm(value - expected[name]) / np.linalg.norm(expected[name])
            assert error < 1e-4, name


@pytest.mark.parametrize(
    ("name", "smoothed"),
    [
        # of the inputs to q/k/v, attention output, gate/up and down, all but attention output
        ("llama", [True, False, True, True] * 2),
        ("phi3", [True, False, True, True] * 2),
        ("gemma3", [True, False, True, True] * 2),
        ("layer_norm", [True, False, True, True] * 2),
        # one norm for q/k/v and gate/up
        ("cohere", [True, False, True] * 2),
    ],
)
def test_which_inputs_can_be_smoothed(decoder: Decoders, name: str, smoothed: list[bool]) -> None:
    model = decoder(name)
    assert [fold_for(value, group) is not None for value, group in linears_by_input(model).items()] == smoothed


def test_outliers_are_moved_into_the_weights(decoder: Decoders, rows: CalibrationRows) -> None:
    model = decoder("llama")
    norm = linears(model)[0].input.producer()
    assert norm is not None
    scale = np.ones(32, np.float32)
    scale[5] = 100
    set_constant(norm, 1, scale, "outlier")
    name = activations(model)[0]
    before = activation_ranges(model, rows, [name])[name]
    smooth(model, activation_ranges(model, rows, activations(model)), 0.8)
    after = activation_ranges(model, rows, [name])[name]
    assert before[5] / np.median(before) > 50
    assert after[5] / np.median(after) < 10


def test_a_norm_that_something_else_reads_too_is_not_touched(decoder: Decoders) -> None:
    model = decoder("llama")
    value, group = next(iter(linears_by_input(model).items()))
    assert fold_for(value, group) is not None
    model.graph.append(ir.node("Neg", [value]))
    assert fold_for(value, group) is None


def test_an_up_projection_that_something_else_reads_too_is_not_touched(decoder: Decoders) -> None:
    model = decoder("llama")
    value, group = list(linears_by_input(model).items())[3]  # the input of down
    up = operand(value.producer(), 1)  # type: ignore[arg-type]
    assert fold_for(value, group) is not None
    model.graph.append(ir.node("Neg", [up]))
    assert fold_for(value, group) is None


def with_expert(model: ir.Model) -> ir.Value:
    """Add what an expert says to the first block's up projection; the input of its down projection."""
    value, _ = list(linears_by_input(model).items())[3]
    product = value.producer()
    assert product is not None
    up, x = operand(product, 1), list(linears_by_input(model))[2]
    random = np.random.default_rng(1)
    first, second = (random.standard_normal(shape).astype(np.float32) * 0.2 for shape in ((32, 4), (4, 48)))
    constants = [add_constant(model.graph, f"expert_{i}", array) for i, array in enumerate((first, second))]
    inner = ir.node("MatMul", [x, constants[0]])
    gated = ir.node("Mul", [inner.outputs[0], ir.node("Sigmoid", [inner.outputs[0]]).outputs[0]])
    sigmoid = gated.inputs[1].producer()  # type: ignore[union-attr]
    delta = ir.node("MatMul", [gated.outputs[0], constants[1]])
    total = ir.node("Add", [up, delta.outputs[0]])
    assert sigmoid is not None
    model.graph.insert_before(product, [inner, sigmoid, gated, delta, total])
    product.replace_input_with(1, total.outputs[0])
    return value


def test_an_up_projection_with_experts_is_smoothed_with_them_and_computes_what_it_did(
    decoder: Decoders, run: Run, rows: CalibrationRows, cases: list[Feeds]
) -> None:
    model = decoder("llama")
    value = with_expert(model)
    group = linears_by_input(model)[value]
    assert fold_for(value, group) is not None
    before = [run(model, feeds) for feeds in cases]
    down = group[0].weight
    smooth(model, activation_ranges(model, rows, activations(model)), 0.7)
    assert not np.allclose(linears_by_input(model)[value][0].weight, down)
    for feeds, expected in zip(cases, before, strict=True):
        for name, found in run(model, feeds).items():
            assert np.linalg.norm(found - expected[name]) / np.linalg.norm(expected[name]) < 1e-4, name


def test_an_expert_that_something_else_reads_too_is_not_touched(decoder: Decoders) -> None:
    model = decoder("llama")
    value = with_expert(model)
    total = operand(value.producer(), 1)  # type: ignore[arg-type]
    delta = operand(total.producer(), 1)  # type: ignore[arg-type]
    model.graph.append(ir.node("Neg", [delta]))
    assert fold_for(value, linears_by_input(model)[value]) is None


def test_norms_that_share_a_weight_are_smoothed_apart(
    decoder: Decoders, run: Run, rows: CalibrationRows, cases: list[Feeds]
) -> None:
    model = decoder("llama")
    norms = [node for node in model.graph if node.op_type == "RMSNormalization"]
    for norm in norms[1:]:
        norm.replace_input_with(1, norms[0].inputs[1])
    before = [run(model, feeds)["state"] for feeds in cases]
    smooth(model, activation_ranges(model, rows, activations(model)), 0.7)
    for feeds, expected in zip(cases, before, strict=True):
        np.testing.assert_allclose(run(model, feeds)["state"], expected, rtol=1e-4, atol=1e-4)
    first, second = (required_constant(operand(norm, 1)) for norm in norms[:2])
    assert not np.allclose(first, second)
