"""Scales of tokens move to where they cost less, and what a graph computes stays what it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from qe_edge_export.passes import move_token_scales, quantise_linears, simplify

Run = Callable[..., dict[str, NDArray[Any]]]
Feeds = dict[str, NDArray[Any]]


def scaled_products(model: ir.Model) -> int:
    """Products that are multiplied by the scales of their tokens."""
    firsts = [node.inputs[0].producer() for node in model.graph if node.op_type == "Mul" and node.inputs[0]]
    return sum(first is not None and first.op_type == "MatMulIntegerToFloat" for first in firsts)


def reads_scaled(model: ir.Model, operator: str) -> list[bool]:
    """Of every node of an operator, whether what it reads comes from a product times its scales."""
    found = []
    for node in model.graph:
        if node.op_type == operator:
            before = node.inputs[0].producer()  # type: ignore[union-attr]
            while before is not None and before.op_type in ("Reshape", "Transpose"):
                before = before.inputs[0].producer()  # type: ignore[union-attr]
            found.append(before is not None and before.op_type != "MatMulIntegerToFloat")
    return found


def test_queries_keys_and_up_are_left_without_scales(
    decoder: Callable[..., ir.Model], run: Run, cases: list[Feeds]
) -> None:
    model = decoder("llama")
    simplify(model)
    quantise_linears(model)
    before = [run(model, feeds)["state"] for feeds in cases]
    assert scaled_products(model) == 14
    assert reads_scaled(model, "RotaryEmbedding") == [True] * 4

    move_token_scales(model)

    assert reads_scaled(model, "RotaryEmbedding") == [False] * 4
    for feeds, expected in zip(cases, before, strict=True):
        close(run(model, feeds)["state"], expected)


def test_a_gated_product_loses_one_multiplication(run: Run) -> None:
    model = gated_model()
    quantise_linears(model)
    x = np.random.default_rng(1).standard_normal((30, 8)).astype(np.float32) * np.logspace(-3, 3, 30)[:, None]
    feeds = {"x": x.astype(np.float32)}
    before = run(model, feeds)["y"]
    assert scaled_products(model) == 3
    move_token_scales(model)
    # gate and down; up goes into the gated product as it comes out of the integers
    assert scaled_products(model) == 2
    close(run(model, feeds)["y"], before)


def test_a_product_that_something_else_reads_keeps_its_scale(run: Run) -> None:
    model = gated_model(read_up=True)
    quantise_linears(model)
    feeds = {"x": np.random.default_rng(1).standard_normal((3, 8)).astype(np.float32)}
    before = run(model, feeds)
    move_token_scales(model)
    found = run(model, feeds)
    np.testing.assert_array_equal(found["up"], before["up"])
    close(found["y"], before["y"])  # the gate's scale has moved instead


@pytest.mark.parametrize("name", ["qwen2", "phi3", "cohere", "gemma3", "layer_norm"])
def test_every_family_computes_what_it_did(
    decoder: Callable[..., ir.Model], run: Run, cases: list[Feeds], name: str
) -> None:
    model = decoder(name)
    simplify(model)
    quantise_linears(model)
    before = [run(model, feeds)["state"] for feeds in cases]
    move_token_scales(model)
    for feeds, expected in zip(cases, before, strict=True):
        close(run(model, feeds)["state"], expected)


def close(found: NDArray[Any], expected: NDArray[Any]) -> None:
    """Rows are the same but for roundings to 8 bits that fall to the other side."""
    error = np.linalg.norm(found - expected, axis=-1) / np.linalg.norm(expected, axis=-1)
    assert error.max() < 0.02


def gated_model(read_up: bool = False) -> ir.Model:
    """x [rows, 8] to gate and up [rows, 6], gate * up, and down, y [rows, 4]."""
    random = np.random.default_rng(0)
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["rows", 8]))
    weights = [
        ir.Value(name=name, const_value=ir.tensor(random.standard_normal(shape).astype(np.float32)))
        for name, shape in (("gate_w", (8, 6)), ("up_w", (8, 6)), ("down_w", (6, 4)))
    ]
    gate = ir.node("MatMul", [x, weights[0]])
    up = ir.node("MatMul", [x, weights[1]])
    both = ir.node("Mul", [gate.outputs[0], up.outputs[0]])
    down = ir.node("MatMul", [both.outputs[0], weights[2]])
    for node, name, width in ((gate, "gate", 6), (up, "up", 6), (both, "both", 6), (down, "y", 4)):
        node.outputs[0].name = name
        node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
        node.outputs[0].shape = ir.Shape(["rows", width])
    outputs = [down.outputs[0], *([up.outputs[0]] if read_up else [])]
    graph = ir.Graph([x], outputs, nodes=[gate, up, both, down], initializers=weights, opset_imports={"": 23})
    return ir.Model(graph, ir_version=10)
