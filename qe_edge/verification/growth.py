"""What a graph's constants unpack to: a few bytes of a file must not become the whole memory of a machine.

ONNX Runtime computes what depends on constants alone while it loads a graph. An export has computed all of that but
for the type of some constants (`Cast`) and the 8-bit weights that lie in the file with 4 bits (`QuantizeLinear`):
neither gives more numbers than its first constant has. `Expand` is the one operator of the list that makes a value as
large as a constant says. Sizes that are computed while scoring are not bounded here.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import MappingProxyType

from qe_edge.verification.nodes import Node
from qe_edge.verification.tensors import Tensor
from qe_edge.verification.wire import WireError

LARGEST_NUMBER = 8
"""bytes of the largest number that a graph computes with, an int64"""
UNPACKED = MappingProxyType({"Cast": LARGEST_NUMBER, "QuantizeLinear": 2})
"""Operators that may read constants alone -> bytes of the largest number that they give."""
MULTIPLE = 20
"""most bytes that constants may unpack to, for each byte of graph and weights; of a weight in 4 bits and its share of
divisor and zero point, 4.75 bits, they are counted as 10"""
FREE = 1 << 20
"""bytes that they may unpack to in any graph, however small"""


def check_growth(nodes: Iterable[Node], tensors: Iterable[Tensor], file_bytes: int) -> None:
    """Raise WireError when nodes compute from constants alone, or constants unpack to more than `file_bytes` allow.

    nodes: each after those it reads, as `check_order` makes sure.
    """
    allowed = MULTIPLE * file_bytes + FREE
    elements: dict[bytes, int] = {}  # by the name of a constant
    sizes: dict[bytes, int] = {}  # by the name of a shape, the product of what constants say of it
    for tensor in tensors:
        elements[tensor.name] = tensor.elements
        if tensor.integers is not None:
            sizes[tensor.name] = _product(tensor.integers, allowed)
    unpacked = 0
    for node in nodes:
        read = node.inputs
        if all(name in elements for name in read):
            if node.operator not in UNPACKED or not read:
                raise WireError(f"has a node {node.operator} that reads constants alone")
            elements.update(dict.fromkeys(node.outputs, elements[read[0]]))
            unpacked += elements[read[0]] * UNPACKED[node.operator]
        elif node.operator == "Concat":
            sizes.update(dict.fromkeys(node.outputs, _product((sizes.get(name, 1) for name in read), allowed)))
        elif node.operator == "Expand" and len(read) == 2:
            shape = read[1]
            if shape in elements and shape not in sizes:
                raise WireError("has an Expand whose shape is no short list of int64 in the graph")
            unpacked += sizes.get(shape, 1) * LARGEST_NUMBER
        if unpacked > allowed:
            raise WireError(
                f"unpacks constants to {unpacked} bytes or more, {allowed} are allowed for files of its size"
            )


def _product(sizes: Iterable[int], enough: int) -> int:
    """The product of sizes, those below 1 left out; no further than to the first that is larger than `enough`."""
    product = 1
    for size in sizes:
        product *= max(size, 1)
        if product > enough:
            break
    return product
