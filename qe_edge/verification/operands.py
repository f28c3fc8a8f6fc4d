"""What some operators are given: ONNX Runtime takes their inputs to fit together and looks at less than is needed.

It reads beyond the end of a matrix that has one axis, for instance. An export gives these operators constants for all
inputs but one, so that shapes can be compared before anything is read. `Cast` and `QuantizeLinear` keep them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from qe_edge.verification.nodes import Node
from qe_edge.verification.tensors import Tensor
from qe_edge.verification.wire import WireError

Shape = tuple[int, ...]
SAME_SHAPE = ("Cast", "QuantizeLinear")
"""operators that give the shape of their first input"""
BLOCKS = (16, 32, 64, 128, 256)
"""numbers that share a step"""
WIDTHS = (4, 8)
"""bits of a number"""


def check_operands(nodes: Iterable[Node], tensors: Iterable[Tensor]) -> None:
    """Raise WireError naming the operator whose constants do not fit together.

    nodes: each after those it reads, as `check_order` makes sure.
    """
    shapes = {tensor.name: tensor.shape for tensor in tensors}
    for node in nodes:
        if node.operator in SAME_SHAPE and node.inputs and node.outputs and node.inputs[0] in shapes:
            shapes[node.outputs[0]] = shapes[node.inputs[0]]
        if node.operator in EXPECTED:
            found = [shapes.get(name) for name in node.inputs]
            if not EXPECTED[node.operator](found, node.numbers):
                said = ", ".join("a value" if shape is None else str(list(shape)) for shape in found)
                raise WireError(f"has a node {node.operator} with inputs that do not fit together: {said}")


Found = list[Shape | None]
"""shapes of inputs that are constants, None for others"""


def _integer_product(found: Found, _: Mapping[bytes, int]) -> bool:
    """tokens [.., K], weights [K, N], step, N steps, zero point"""
    match found:
        case [None, (int(), channels), (), (steps,), ()]:
            return channels == steps
    return False


def _blocked_product(found: Found, numbers: Mapping[bytes, int]) -> bool:
    """tokens [.., K], N rows of blocks in bytes, their steps, perhaps their zero points in bytes"""
    depth, channels, bits, block = (numbers.get(name, 0) for name in (b"K", b"N", b"bits", b"block_size"))
    if depth < 1 or channels < 1 or bits not in WIDTHS or block not in BLOCKS:
        return False
    blocks = -(-depth // block)
    match found:
        case [None, rows, steps, *zeros] if len(zeros) <= 1:
            fit = rows == (channels, blocks, block * bits // 8) and steps == (channels, blocks)
            return fit and zeros in ([], [(channels, -(-blocks * bits // 8))])
    return False


def _blocked_table(found: Found, numbers: Mapping[bytes, int]) -> bool:
    """table [V, H], ids, steps [V, blocks], perhaps zero points of that shape"""
    match found:
        case [(rows, width), None, steps, *zeros] if len(zeros) <= 1:
            block = numbers.get(b"block_size", 0)
            if block not in BLOCKS or numbers.get(b"bits") not in WIDTHS:
                return False
            if numbers.get(b"quantize_axis") != 1 or numbers.get(b"gather_axis") != 0:
                return False
            return [steps, *zeros] == [(rows, -(-width // block))] * (1 + len(zeros))
    return False


def _norm(found: Found, _: Mapping[bytes, int]) -> bool:
    """values, gain, bias"""
    match found:
        case [None, (gains,), (biases,)]:
            return gains == biases
    return False


EXPECTED = {
    "MatMulIntegerToFloat": _integer_product,
    "MatMulNBits": _blocked_product,
    "GatherBlockQuantized": _blocked_table,
    "LayerNormalization": _norm,
}
"""Operator -> whether its inputs fit together, by their shapes and its attributes that are whole numbers."""
