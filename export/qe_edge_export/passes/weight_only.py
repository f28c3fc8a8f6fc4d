"""Weight-only: linear layers whose weights are 8- or 4-bit integers in blocks, the activations float32.

A weight W [K, N] is cut into blocks of 32 input channels of one output channel (passes/blocks.py). ONNX Runtime's
`MatMulNBits` multiplies with the blocks as they are stored, on CPUs and on CUDA; on a CPU with `accuracy_level` 4 it
also quantises the activations, to 8 bits in blocks of 32 with a step each (docs/quantisation.md).

Legend: K input channels, padded to a multiple of 32, N output channels.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.tape import Tape

from qe_edge_export.passes.blocks import BLOCK, Blocks, quantise_blocks
from qe_edge_export.passes.error_feedback import round_with_feedback
from qe_edge_export.passes.linear import Floats, Linear, add_constant, linears_by_input, replace_value
from qe_edge_export.passes.simplify import remove_unused

ACCURACY_LEVEL = 4
"""Of `MatMulNBits`: 4 multiplies 8-bit activations with the integers of a block, exactly; 1 would expand the weights to
float32. Only CPUs know the difference."""

CONTRIB = "com.microsoft"


def quantise_weights(model: ir.Model, bits: int, products: Mapping[str, Floats] | None = None) -> None:
    """Store the weights of linear layers in 8 or 4 bits, in place; biases, and layers marked to stay in float32, are
    left as they are.

    products: activation name -> X^T X [K, K] from `input_products`, for rounding with error feedback; without them
    every weight is rounded to the nearest number of its block.
    """
    model.graph.opset_imports[CONTRIB] = 1
    for activation, every in linears_by_input(model).items():
        group = [linear for linear in every if not linear.stays_float]
        if not group:
            continue
        product = None if products is None else products[str(activation.name)]
        for linear in group:
            _replace_product(model.graph, linear, weight_blocks(linear.weight, product, bits), bits)
    remove_unused(model)


def weight_blocks(weight: Floats, product: Floats | None, bits: int) -> Blocks:
    """A weight [K, N] as blocks along K, integers [N, K padded]; with X^T X [K, K] rounded with error feedback."""
    weight = _padded(weight, axes=1)
    if product is None:
        return quantise_blocks(np.ascontiguousarray(weight.T), bits)
    return round_with_feedback(weight, _padded(product, axes=2), bits)


def _padded(array: Floats, axes: int) -> Floats:
    """With zeros after the last input channel, up to a multiple of 32; `axes`: how many, from the first, are K."""
    missing = -len(array) % BLOCK
    return np.pad(array, [(0, missing if axis < axes else 0) for axis in range(array.ndim)])


def _replace_product(graph: ir.Graph, linear: Linear, blocks: Blocks, bits: int) -> None:
    name = linear.product.outputs[0].name
    depth, width = linear.weight.shape
    tape = Tape()
    # in the file steps have 16 bits; the operator wants the type of the activations, and a cast of a constant is made
    # once, when the graph is loaded
    steps = tape.op("Cast", [add_constant(graph, f"{name}.steps", blocks.steps)], {"to": ir.DataType.FLOAT})
    integers = blocks.integers.reshape(width, -1, BLOCK)  # [N, K / 32, 32]
    inputs = [linear.input, add_constant(graph, f"{name}.int{bits}", _packed(integers, bits)), steps]
    if bits == 4:  # in 8 bits the zero point is always 128, the operator's default
        inputs.append(add_constant(graph, f"{name}.zeros", _packed(blocks.zeros, bits)))
    attributes = {"K": depth, "N": width, "bits": bits, "block_size": BLOCK, "accuracy_level": ACCURACY_LEVEL}
    product = tape.op("MatMulNBits", inputs, attributes, domain=CONTRIB)
    graph.insert_before(linear.product, tape.nodes)
    replace_value(linear.product.outputs[0], product)
    graph.remove(linear.product, safe=True)


def _packed(values: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """As the operator wants it: bytes as they are, or two 4-bit numbers of the last axis in a byte, the first one in
    the lower half; an odd last one gets a zero beside it."""
    if bits == 8:
        return values
    if values.shape[-1] % 2:
        values = np.concatenate([values, np.zeros_like(values[..., :1])], axis=-1)
    packed: NDArray[np.uint8] = values[..., 0::2] | values[..., 1::2] << np.uint8(4)
    return packed
