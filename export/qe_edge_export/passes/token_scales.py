"""Scales of tokens that `w8a8` multiplies its products by, moved to where they cost less.

A product of w8a8 is y = p s, p [.., N] out of integers and s [.., 1] one number a token. Multiplying reads and writes
all of p once more. Two kinds of readers can do without:

- quantisation of a product of two values, as act(gate) * up before the down projection. It divides by the largest
  number of a token, so q(g * p s) = q(g * p), and s goes on to the step of the next product;
- rotary embedding, which is linear in what it turns: cosines and sines [B, S, D / 2] are multiplied in its place.

Exact but for the last bit of a float32, which a rounding to 8 bits may magnify.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.tape import Tape

from qe_edge_export.passes.linear import operand
from qe_edge_export.passes.simplify import remove_unused, share_subexpressions
from qe_edge_export.passes.w8a8 import UNIT

QUANTISING = ("ReduceMax", "ReduceMin", "QuantizeLinear")
"""What reads an activation in order to quantise it (`w8a8.py`)."""


def move_token_scales(model: ir.Model) -> None:
    """Move what can be moved, in place; to be run after `quantise_linears`."""
    for node in list(model.graph):
        if node.op_type == "Mul":
            _past_quantisation(node)
        elif node.op_type == "RotaryEmbedding":
            _into_rotary(node)
    share_subexpressions(model)  # queries and keys of a block have the same scales, and turn by the same tables
    remove_unused(model)


def _past_quantisation(node: ir.Node) -> None:
    """Where `node` multiplies two values, one of them p s, and is quantised: multiply by p, and the new step by s."""
    readers = {reader.op_type: reader for reader in node.outputs[0].consumers()}
    if sorted(readers) != sorted(QUANTISING) or len(node.outputs[0].uses()) != len(QUANTISING):
        return
    for side in (1, 0):
        scaled = _scaled(operand(node, side))
        if scaled is None:
            continue
        product, scale = operand(scaled, 0), operand(scaled, 1)
        quantising = readers["QuantizeLinear"]
        step = operand(quantising, 1)
        products = [reader for reader in step.consumers() if _is_scaled(reader)]
        if not products:
            return
        tape = Tape()
        both = tape.op("Mul", [step, scale])
        _graph(node).insert_before(products[0], tape.nodes)
        for reader in products:
            reader.replace_input_with(1, both)
        node.replace_input_with(side, product)
        return


def _into_rotary(node: ir.Node) -> None:
    """Where `node` turns p s, its heads laid out by Reshape and Transpose: turn p by cosines and sines times s."""
    if len(node.inputs) != 3 or node.attributes.get_int("rotary_embedding_dim", 0) != 0:
        return  # with position ids, cosines are a table for all tokens; what is not turned would keep its scale
    value, path = operand(node, 0), []
    while (before := value.producer()) is not None and before.op_type in ("Reshape", "Transpose"):
        if len(value.uses()) != 1:
            return
        path.append(before)
        value = operand(before, 0)
    scaled = _scaled(value)
    if scaled is None or not path:
        return
    tape = Tape()
    turned = [tape.op("Mul", [operand(node, index), operand(scaled, 1)]) for index in (1, 2)]
    _graph(node).insert_before(node, tape.nodes)
    for index, table in enumerate(turned, 1):
        node.replace_input_with(index, table)
    path[-1].replace_input_with(0, operand(scaled, 0))


def _scaled(value: ir.Value) -> ir.Node | None:
    """The node that makes `value` = p s, if nothing but one node reads it."""
    node = value.producer()
    alone = len(value.uses()) == 1 and not value.is_graph_output()
    return node if node is not None and alone and _is_scaled(node) else None


def _is_scaled(node: ir.Node) -> bool:
    """Whether a node multiplies a product of w8a8 by the scales of its tokens."""
    if node.op_type != "Mul":
        return False
    product = operand(node, 0).producer()
    if product is None or product.op_type != "MatMulIntegerToFloat":
        return False
    return operand(product, 2).name == UNIT  # else its tokens have one step, by which it is multiplied already


def _graph(node: ir.Node) -> ir.Graph:
    assert isinstance(node.graph, ir.Graph)
    return node.graph
