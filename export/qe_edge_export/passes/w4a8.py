"""W4A8: the arithmetic of w8a8 from weights that lie in the file with 4 bits each.

A weight is rounded to blocks of 32 input channels, (q - z) d (passes/blocks.py), and the blocks of an output channel
are brought to one step c_n, which the product of w8a8 multiplies by:

    V_kn = round(q_kn / s) - round(z / s)       int8, s = c_n / d of the block
    W_kn = V_kn c_n

Two nodes that read constants alone say so in the graph: `Cast` of the 4-bit q to float16 and `QuantizeLinear` in
blocks, which divides by s, rounds and adds -round(z / s). ONNX Runtime computes both when it loads the graph: what runs
is w8a8.

Legend: K input channels, N output channels, n blocks of 32 input channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import ml_dtypes
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.tape import Tape

from qe_edge_export.passes.blocks import BLOCK, Blocks
from qe_edge_export.passes.linear import Floats, Linear, add_constant
from qe_edge_export.passes.w8a8 import quantise_linears, weight_steps
from qe_edge_export.passes.weight_only import weight_blocks

ROOM = 1.02
"""The two roundings of V, and the 11 bits of s, move an integer by less than 1.1: steps 2 % larger than the smallest
that w8a8 allows leave that much below both of its limits (127 alone, 128 for a pair of neighbours)."""

LARGEST_ZERO = 126
"""Most steps c_n of a block's zero point, which is an int8 after rounding."""

HALF = np.finfo(np.float16)


class Packed(NamedTuple):
    """A weight [K, N] in 4 bits, to be expanded to int8."""

    integers: NDArray[np.uint8]
    """q [K, N], 0..15"""
    divisors: NDArray[np.float16]
    """s [n, N]"""
    zeros: NDArray[np.int8]
    """-round(z / s) [n, N]"""
    step: Floats
    """c [N]"""

    def expanded(self) -> NDArray[np.int8]:
        """V [K, N], bit for bit what the graph's nodes compute."""
        depth = len(self.integers)
        divisors, zeros = (np.repeat(each.astype(np.float32), BLOCK, axis=0)[:depth] for each in self[1:3])
        return (np.rint(self.integers / divisors) + zeros).astype(np.int8)


def quantise_linears_to_4_bits(
    model: ir.Model, products: Mapping[str, Floats], steps: Mapping[str, float] = MappingProxyType({})
) -> None:
    """Turn linear layers into W8A8 with weights stored in 4 bits, in place.

    products: activation name -> X^T X [K, K] from `input_products`, for rounding with error feedback. steps: as for
    `quantise_linears`. Biases, and layers marked to stay in float32, are left as they are.
    """

    def store(graph: ir.Graph, tape: Tape, linear: Linear) -> tuple[ir.Value, ir.Value]:
        packed = pack(weight_blocks(linear.weight, products[str(linear.input.name)], 4), len(linear.weight))
        name = linear.product.outputs[0].name
        integers = add_constant(graph, f"{name}.int4", packed.integers.astype(ml_dtypes.uint4))
        # 0..15 are exact in float16, and ONNX Runtime divides in float32
        expanding = [
            tape.op("Cast", [integers], {"to": ir.DataType.FLOAT16}),
            add_constant(graph, f"{name}.divisors", packed.divisors),
            add_constant(graph, f"{name}.zeros", packed.zeros),
        ]
        weight = tape.op("QuantizeLinear", expanding, {"axis": 0, "block_size": BLOCK})
        return weight, add_constant(graph, f"{name}.step", packed.step)

    quantise_linears(model, store, steps)


def pack(blocks: Blocks, depth: int) -> Packed:
    """Blocks of a weight, integers [N, K padded], with steps c such that both limits of w8a8 hold; `depth` is K."""
    steps, zeros = (each.T.astype(np.float32) for each in (blocks.steps, blocks.zeros))  # [n, N]
    step = np.maximum(weight_steps(blocks.floats().T) * ROOM, (zeros * steps).max(axis=0) / LARGEST_ZERO)
    step = step.astype(np.float32)
    divisors = (step / steps).clip(HALF.smallest_normal, HALF.max).astype(np.float16)
    offsets = -np.rint(zeros / divisors.astype(np.float32))
    integers = np.ascontiguousarray(blocks.integers.T[:depth])
    return Packed(integers, divisors, offsets.astype(np.int8), step)
