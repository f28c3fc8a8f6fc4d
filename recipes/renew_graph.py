"""Bring the graph of an older w8a8 bundle to the form that today's exporter writes, around the very same weights.

Early exports divided activations by a scale of each token before rounding them, multiplied every product by it at once,
made queries of all positions in the last block, and wrote no numbers of heads on `Attention`. Here all of that is
changed in the finished graph: no weight, step or head changes, so `model.onnx.data` keeps its bytes, and scores move by
what a rounding to 8 bits makes of the last bit of a float32. The gate's figures of the bundle are kept.

    python recipes/renew_graph.py BUNDLE OUT
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnx_ir.tape import Tape

from qe_edge.bundle import open_bundle
from qe_edge_export.passes.linear import add_constant, operand, replace_value
from qe_edge_export.passes.simplify import remove_unused
from qe_edge_export.passes.token_scales import move_token_scales
from qe_edge_export.passes.w8a8 import CONTRIB, quantise_tokens
from qe_edge_export.writer import write_bundle

MATMUL = "MatMulIntegerToFloat"


def renew(model: ir.Model) -> int:
    """Rewrite a graph in place; returns how many activations are now quantised in another way."""
    rewritten = 0
    for node in list(model.graph):
        if node.op_type == "QuantizeLinear" and node.attributes.get_int("block_size", 0) == 0:
            _quantise_by_token(model.graph, node)
            rewritten += 1
        elif node.op_type == "Attention" and "q_num_heads" not in node.attributes:
            _name_heads(node)
    move_token_scales(model)
    _ask_once(model.graph)
    remove_unused(model)
    return rewritten


def _quantise_by_token(graph: ir.Graph, old: ir.Node) -> None:
    """QuantizeLinear(a * (127 / m), 1), and the products' m / 127: QuantizeLinear(a, m / 127), a token as a block."""
    scaled = _made_by(operand(old, 0), "Mul")
    activation, largest = operand(scaled, 0), operand(_made_by(operand(scaled, 1), "Div"), 1)
    _made_by(largest, "Max")
    steps = [node for node in largest.consumers() if node.op_type == "Div" and operand(node, 0) is largest]
    products = old.outputs[0].consumers()
    assert len(steps) == 1
    assert {node.op_type for node in products} == {MATMUL}
    weight = operand(products[0], 1).shape
    assert weight is not None
    assert isinstance(weight[0], int)
    tape = Tape()
    quantised, step = quantise_tokens(graph, tape, activation, weight[0])
    graph.insert_before(scaled, tape.nodes)
    replace_value(old.outputs[0], quantised)
    replace_value(steps[0].outputs[0], step)


def _ask_once(graph: ir.Graph) -> None:
    """The last block's queries for the last position of a row alone, asked twice (`qe_edge_train/attention.py`)."""
    attention = [node for node in graph if node.op_type == "Attention"][-1]
    mixed = attention.outputs[0]
    while (reader := mixed.consumers()[0]).op_type in ("Transpose", "Reshape"):
        mixed = reader.outputs[0]
    assert reader.op_type == "GatherND", "only the last positions are read"
    rotation = _made_by(operand(attention, 0), "RotaryEmbedding")
    product = _made_by(operand(_made_by(operand(_made_by(operand(rotation, 0), "Transpose"), 0), "Reshape"), 0), MATMUL)
    heads, keys, values, mask = attention.attributes.get_int("q_num_heads"), *attention.inputs[1:4]
    _, *weight = product.inputs
    steps = operand(product, 3).shape
    assert steps is not None
    assert isinstance(steps[0], int)
    last = next(value for value in graph.inputs if value.name == "last")
    place, width = operand(reader, 1), steps[0]

    def number(*values: int) -> ir.Value:
        name = f"renewed.{'_'.join(map(str, values))}"
        return graph.initializers.get(name) or add_constant(graph, name, np.array(values, np.int64))

    tape = Tape()

    def twice(value: ir.Value) -> ir.Value:
        return tape.op("Concat", [value, value], {"axis": 2})

    asked = tape.op(MATMUL, [tape.op("GatherND", [operand(product, 0), place]), *weight], domain=CONTRIB)  # [B, N D]
    asked = tape.op("Reshape", [asked, number(-1, heads, 1, width // heads)])  # [B, N, 1, D]
    turns = [tape.op("Unsqueeze", [tape.op("GatherND", [operand(rotation, i), place]), number(1)]) for i in (1, 2)]
    asked = tape.op("RotaryEmbedding", [asked, *turns], {"num_heads": heads})
    seen = tape.op("Gather", [tape.op("Squeeze", [mask, number(0, 1)]), last], {"axis": 0})  # [B, T]
    seen = tape.op("Unsqueeze", [seen, number(1, 2)])
    once = tape.op("Attention", [twice(asked), keys, values, twice(seen)], attributes=attention.attributes)
    once = tape.op("Slice", [once, number(0), number(1), number(2)])  # [B, N, 1, D]
    flat = tape.op("Reshape", [once, number(-1, width)])
    graph.insert_before(reader, tape.nodes)
    replace_value(reader.outputs[0], flat)


def _made_by(value: ir.Value, operator: str) -> ir.Node:
    node = value.producer()
    assert node is not None
    assert node.op_type == operator, f"{value}: made by {node.op_type}, not by {operator}"
    return node


def _name_heads(attention: ir.Node) -> None:
    """Write the numbers of heads, which the rotations of queries and keys know."""
    for name, index in (("q_num_heads", 0), ("kv_num_heads", 1)):
        node = operand(attention, index).producer()
        while node is not None and node.op_type == "Concat":  # keys of the prefix before those of the row
            node = operand(node, 1).producer()
        assert node is not None
        assert node.op_type == "RotaryEmbedding"
        attention.attributes.add(ir.AttrInt64(name, node.attributes.get_int("num_heads")))


def main(source: str, target: str) -> None:
    bundle = open_bundle(Path(source))
    model = ir.load(bundle.model)
    print(f"{renew(model)} activations quantised token by token")
    written = write_bundle(Path(target), model, bundle.tokenizer, bundle.spec, force=False)
    same = written.spec.files["model.onnx.data"] == bundle.spec.files["model.onnx.data"]
    print(f"{target}: {written.digest}, weights {'as they were' if same else 'in another order'}")


if __name__ == "__main__":
    main(*sys.argv[1:])
