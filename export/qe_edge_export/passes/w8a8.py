"""W8A8: linear layers in 8-bit integers, weights scaled per output channel, activations per token or all alike.

For a token's activations a [K] and a weight W [K, N]:

    q_k  = round(a_k / s),        s = max|a| / 127, or one step for all tokens (fixed_steps.py)
    V_kn = round(W_kn / c_n)      int8, c_n from `weight_steps`
    y_n  = (sum_k q_k V_kn) * c_n * s

q is in int8's range, stored with zero point 128 as uint8. Rounding is half to even. The sum is exact in int32, and s
belongs to the token alone or to the graph, so a row's result cannot depend on its neighbours, on the batch or on the
number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.tape import Tape

from qe_edge_export.passes.linear import Floats, Linear, add_constant, linears_by_input, replace_value
from qe_edge_export.passes.simplify import remove_unused

ACTIVATION_LEVELS = 127
"""Steps on each side of zero for activations."""

ZERO_POINT = np.uint8(128)
"""Activations are uint8 around 128, weights int8 ("U8S8"). The arithmetic is that of int8 times int8 ("S8S8", which
`np.int8(0)` would give), but ONNX Runtime 1.31 has vector kernels for U8S8 on every x86 processor and for S8S8 only on
those with AVX-VNNI-INT8: elsewhere S8S8 measured 20 times slower (benchmarks/quantised_matmul.py)."""

WEIGHT_LEVELS = 127
"""Most steps on each side of zero for weights."""

PAIR_LEVELS = 127.5
"""Most steps that two neighbouring weights of one sign may take together before rounding, so 128 at most after it.
x86 processors without VNNI (many laptops up to 2022) add two neighbouring products in 16 bits and saturate; since
255 * 128 < 2^15 they cannot overflow, and the integers are the same on every processor."""

SMALLEST = 1e-12
"""Stands in for max|a| of a token whose activations are all zero, so that nothing is divided by zero."""

CONTRIB = "com.microsoft"

UNIT = "w8a8.unit"
"""Name of the constant 1, by which products are multiplied whose tokens have a step each."""

Store = Callable[[ir.Graph, Tape, Linear], tuple[ir.Value, ir.Value]]
"""Puts a layer's weight into the graph, with nodes on the tape where it needs some: int8 [K, N] and its steps [N]."""


def store_int8(graph: ir.Graph, tape: Tape, linear: Linear) -> tuple[ir.Value, ir.Value]:
    """A weight as it is multiplied, one step per output channel; no node is needed."""
    name = linear.product.outputs[0].name
    integers, step = quantise_weight(linear.weight)
    return add_constant(graph, f"{name}.int8", integers), add_constant(graph, f"{name}.step", step)


def quantise_linears(
    model: ir.Model, store: Store = store_int8, steps: Mapping[str, float] = MappingProxyType({})
) -> None:
    """Turn linear layers into W8A8, in place; layers that read one activation share its quantised form.

    Adds one `MatMulIntegerToFloat` for a layer; biases, and layers marked to stay in float32, are left as they are.
    store: how weights lie in the file. steps: activation name -> the one step s of all its tokens; each token of the
    others has a step of its own.
    """
    model.graph.opset_imports[CONTRIB] = 1
    for activation, every in linears_by_input(model).items():
        group = [linear for linear in every if not linear.stays_float]
        if not group:
            continue
        tape, step, scale = Tape(), steps.get(str(activation.name)), None
        if step is None:
            quantised, scale = _quantise_tokens(model.graph, tape, activation, len(group[0].weight))
            fixed = _number(model.graph, UNIT, np.array(1, np.float32))
        else:
            fixed = add_constant(model.graph, f"{activation.name}.step", np.array(step, np.float32))
            quantised = tape.op("QuantizeLinear", [activation, fixed, _zero(model.graph)])
        model.graph.insert_before(group[0].product, tape.nodes)
        for linear in group:
            _replace_product(model.graph, linear, store, quantised, fixed, scale)
    remove_unused(model)


def quantise_weight(weight: Floats) -> tuple[NDArray[np.int8], Floats]:
    """Weight [K, N] -> integers [K, N] in -127..127 and the step of every output channel [N]."""
    step = weight_steps(weight)
    return np.rint(weight / step).clip(-WEIGHT_LEVELS, WEIGHT_LEVELS).astype(np.int8), step


def weight_steps(weight: Floats) -> Floats:
    """The smallest step of every output channel [N] of a weight [K, N] that keeps to both limits on its integers.

    No integer beyond 127, and no two neighbours (rows 2i and 2i + 1) that add up to more than 128 in one sign.
    """
    depth = len(weight)
    pairs = np.pad(weight, ((0, depth % 2), (0, 0))).reshape((depth + 1) // 2, 2, -1)
    sums = np.maximum(pairs.clip(min=0).sum(axis=1), -pairs.clip(max=0).sum(axis=1))  # [K / 2, N]
    step = np.maximum(np.abs(weight).max(axis=0) / WEIGHT_LEVELS, sums.max(axis=0) / PAIR_LEVELS)
    steps: Floats = np.where(step > 0, step, 1).astype(np.float32)  # a column of zeros has any step
    return steps


def _number(graph: ir.Graph, name: str, value: NDArray[np.generic]) -> ir.Value:
    """A constant that many nodes share."""
    shared = graph.initializers.get(name)
    return shared if shared is not None else add_constant(graph, name, value)


def _zero(graph: ir.Graph) -> ir.Value:
    return _number(graph, "w8a8.zero", np.asarray(ZERO_POINT))


def _quantise_tokens(graph: ir.Graph, tape: Tape, activation: ir.Value, depth: int) -> tuple[ir.Value, ir.Value]:
    """Nodes for q [.., K] uint8 and the step s [.., 1] of each token of an activation [.., K]; `depth` is K."""
    axis = _number(graph, "w8a8.last_axis", np.array([-1], np.int64))
    largest = tape.op("ReduceMax", [activation, axis], {"keepdims": 1})
    smallest = tape.op("Neg", [tape.op("ReduceMin", [activation, axis], {"keepdims": 1})])
    largest = tape.op("Max", [largest, smallest, _number(graph, "w8a8.smallest", np.array(SMALLEST, np.float32))])
    step = tape.op("Div", [largest, _number(graph, "w8a8.levels", np.array(ACTIVATION_LEVELS, np.float32))])
    zeros = tape.op("Expand", [_zero(graph), tape.op("Shape", [step])])
    # a token is one block: it has a step of its own, and no pass over the activation is needed to divide by it
    return tape.op("QuantizeLinear", [activation, step, zeros], {"axis": -1, "block_size": depth}), step


def _replace_product(
    graph: ir.Graph, linear: Linear, store: Store, quantised: ir.Value, fixed: ir.Value, scale: ir.Value | None
) -> None:
    """fixed: the one step of the activation; scale: the step of each token, which the operator has no place for."""
    tape = Tape()
    integers, step = store(graph, tape, linear)
    inputs = [quantised, integers, fixed, step, _zero(graph)]
    result = tape.op("MatMulIntegerToFloat", inputs, domain=CONTRIB)
    if scale is not None:
        result = tape.op("Mul", [result, scale])
    graph.insert_before(linear.product, tape.nodes)
    replace_value(linear.product.outputs[0], result)
    graph.remove(linear.product, safe=True)
