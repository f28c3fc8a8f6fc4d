"""A graph by its values: what makes and reads them, constants, and the weights that products of kernels can take."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from qe_edge.scoring.kernels.onnx_bytes import Node, read_node
from qe_edge.scoring.kernels.packing import Place, Weights
from qe_edge.verification.onnx_fields import (
    DATA_TYPE,
    DIMS,
    ENTRY_KEY,
    ENTRY_VALUE,
    EXTERNAL_DATA,
    INITIALIZERS,
    NODES,
    OUTPUTS,
    RAW_DATA,
    TENSOR_NAME,
    VALUE_NAME,
)
from qe_edge.verification.wire import Message

UINT8, INT8, FLOAT16, UINT4 = 2, 3, 10, 21
"""values of DATA_TYPE"""
PRODUCT_INPUTS, PRODUCT_CHANNELS = 64, 64
"""products take numbers of inputs and of channels that these divide"""
DEEPEST = 1 << 16
"""most inputs of a product: its sums stay within 32 bits"""
TOGETHER = 32
"""inputs whose weights in 4 bits have a divisor of their own for each channel"""
NOTES = b".notes"
"""ends the name of what a product needs of its weights besides"""


class Values:
    """The values of a graph by their names."""

    def __init__(self, graph: Message) -> None:
        self.nodes = [read_node(data) for data in graph.all_bytes(NODES)]
        self.outputs = {Message(value, None).one_bytes(VALUE_NAME) for value in graph.all_bytes(OUTPUTS)}
        tensors = [Message(tensor, None) for tensor in graph.all_bytes(INITIALIZERS)]
        self._shapes = {tensor.one_bytes(TENSOR_NAME): tuple(tensor.all_numbers(DIMS)) for tensor in tensors}
        self._types = {tensor.one_bytes(TENSOR_NAME): tensor.one_number(DATA_TYPE) for tensor in tensors}
        self._written = {tensor.one_bytes(TENSOR_NAME): tensor.one_bytes(RAW_DATA) for tensor in tensors}
        self._places = {tensor.one_bytes(TENSOR_NAME): place for tensor in tensors if (place := _place(tensor))}
        self._makers = {name: node for node in self.nodes for name in node.outputs if name}
        self._readers = Counter(name for node in self.nodes for name in node.inputs)
        expanded = {name: found for name, node in self._makers.items() if (found := self._expanded(node))}
        self._shapes |= {name: one.shape for name, one in expanded.items()}
        plain = {name: Weights(place) for name, place in self._places.items() if self._types[name] == INT8}
        self.weights = {name: one for name, one in (plain | expanded).items() if _fits(one.shape)}
        """that products can take"""

    @property
    def names(self) -> set[bytes]:
        """Of all values but inputs that nothing reads."""
        return self._makers.keys() | self._readers.keys() | self._shapes.keys()

    def products(self) -> dict[bytes, bytes]:
        """Products that kernels take, by the names of their results: their weights."""
        return {node.outputs[0]: node.inputs[1] for node in self.nodes if node.outputs and self._is_product(node)}

    def _expanded(self, node: Node) -> Weights | None:
        """Weights in 4 bits that become int8, with a divisor and a zero point for 32 inputs of each channel."""
        match node:
            case Node(
                operator="QuantizeLinear",
                inputs=(floats, divisors, zeros),
                attributes={"axis": 0, "block_size": together, **others},
            ) if together == TOGETHER and not any(others.values()):
                integers = self._only_input(floats, "Cast")
            case _:
                return None
        if [self._types.get(name) for name in (integers, divisors, zeros)] != [UINT4, FLOAT16, INT8]:
            return None
        found, steps, moved = (self._places.get(name) for name in (integers, divisors, zeros))
        if not found or not steps or not moved or found.shape[1] % 2:
            return None
        depth, channels = found.shape
        if depth % TOGETHER or {steps.shape, moved.shape} != {(depth // TOGETHER, channels)}:
            return None
        return Weights(found, (steps, moved))

    def _is_product(self, node: Node) -> bool:
        match node:
            case Node(operator="MatMulIntegerToFloat", inputs=(_, weights, scale, scales, zero)):
                return (
                    weights in self.weights
                    and self._readers[weights] == 1
                    and self._scalars(scale, zero)
                    and self._types[zero] == UINT8
                    and self._shapes.get(scales) == self._shapes[weights][1:]
                )
        return False

    def _operands(self, product: Node) -> tuple[bytes, ...]:
        """The inputs of a product, as a kernel takes them."""
        tokens, weights, scale, scales, zero = product.inputs
        return tokens, scale, zero, weights, weights + NOTES, scales

    def _maker(self, value: bytes, operator: str) -> Node | None:
        node = self._makers.get(value)
        return node if node is not None and node.operator == operator else None

    def _only_input(self, value: bytes, operator: str, of: int | None = None) -> bytes:
        """The first input of the operator that made a value, if it has one or two (`of`); else nothing."""
        node = self._maker(value, operator)
        if node is None or not node.inputs or (of is not None and len(node.inputs) != of):
            return b""
        return node.inputs[0]

    def _scalars(self, *names: bytes) -> bool:
        return all(self._shapes.get(name) == () for name in names)


def _place(tensor: Message) -> Place | None:
    """Where a constant of two axes lies in another file."""
    shape = tuple(tensor.all_numbers(DIMS))
    if len(shape) != 2:
        return None
    entries = [Message(entry, None) for entry in tensor.all_bytes(EXTERNAL_DATA)]
    said = {entry.one_bytes(ENTRY_KEY): entry.one_bytes(ENTRY_VALUE) for entry in entries}
    file, offset = said.get(b"location", b"").decode("utf-8", "replace"), said.get(b"offset", b"0")
    if not file or Path(file).name != file or not offset.isdigit():
        return None
    return Place(file, int(offset), (shape[0], shape[1]))


def _fits(shape: tuple[int, int]) -> bool:
    """Whether kernels take products of this size."""
    return shape[0] <= DEEPEST and shape[0] % PRODUCT_INPUTS == 0 and shape[1] % PRODUCT_CHANNELS == 0
