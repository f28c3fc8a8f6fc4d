"""The token embedding in 4 or 8 bits: integers in blocks of 32 with one step each, expanded when a row is read.

The blocks are those of passes/blocks.py, along the hidden size. ONNX Runtime's `GatherBlockQuantized` expands just
the rows that a batch needs. In 4 bits the most frequent tokens may keep 8: few of them make up most of a text
(docs/quantisation.md).

Legend: V vocabulary, H hidden size, B x S tokens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.tape import Tape

from qe_edge.errors import UsageError
from qe_edge_export.passes.blocks import BLOCK, quantise_blocks
from qe_edge_export.passes.linear import Floats, add_constant, constant, operand, replace_value, required_constant
from qe_edge_export.passes.simplify import remove_unused

FREQUENT = 2000
"""Ids that keep 8 bits by default: 0.6 MB more, about 80 % of the tokens of most languages."""


def quantise_embedding(model: ir.Model, bits: int = 4, frequent: Sequence[int] = ()) -> None:
    """Store the table in which `tokens` are looked up in 4 or 8 bits per number, in place.

    frequent: ids whose rows keep 8 bits in a table of their own when the others have 4.

    Raises UsageError for another number of bits and for a hidden size that is not a multiple of 32, ValueError when
    the graph has no such table.
    """
    if bits not in (4, 8):
        raise UsageError(f"embedding in {bits} bits is not supported; use 4 or 8")
    lookup = token_lookup(model.graph)
    table, tokens = required_constant(operand(lookup, 0)), operand(lookup, 1)
    vocabulary, hidden = table.shape
    if hidden % BLOCK:
        raise UsageError(f"hidden size {hidden}: the embedding can be quantised only for a multiple of {BLOCK}")
    graph, tape = model.graph, Tape()
    kept = np.zeros(vocabulary, np.bool_)
    kept[list(frequent)] = True
    if bits == 4 and kept.any():
        result = _gather_from_two(graph, tape, table, tokens, kept)
    else:
        result = _gather(graph, tape, table, tokens, bits)
    graph.opset_imports["com.microsoft"] = 1
    graph.insert_before(lookup, tape.nodes)
    replace_value(lookup.outputs[0], result)
    graph.remove(lookup, safe=True)
    remove_unused(model)


def most_frequent(texts: Iterable[Sequence[int]], count: int = FREQUENT) -> list[int]:
    """The `count` token ids that occur most often in texts of token ids; of equally frequent ones the lower id."""
    occurrences = Counter(token for text in texts for token in text)
    return sorted(occurrences, key=lambda token: (-occurrences[token], token))[:count]


def _gather(graph: ir.Graph, tape: Tape, table: Floats, rows: ir.Value, bits: int) -> ir.Value:
    """Nodes that read `rows` [..] from a table stored in `bits`: float32 [.., H]."""
    blocks = quantise_blocks(table, bits)
    inputs = [
        add_constant(graph, f"embedding.int{bits}", _stored(blocks.integers, bits)),
        rows,
        add_constant(graph, f"embedding.int{bits}.steps", blocks.steps),  # no Cast of them: OpenVINO wants constants
    ]
    if bits == 4:  # in 8 bits the zero point is always 128, the operator's default
        inputs.append(add_constant(graph, f"embedding.int{bits}.zeros", _stored(blocks.zeros, bits)))
    attributes = {"block_size": BLOCK, "quantize_axis": 1, "gather_axis": 0, "bits": bits}
    found = tape.op("GatherBlockQuantized", inputs, attributes, domain="com.microsoft")
    return tape.op("Cast", [found], {"to": ir.DataType.FLOAT})


def _gather_from_two(graph: ir.Graph, tape: Tape, table: Floats, tokens: ir.Value, kept: NDArray[np.bool_]) -> ir.Value:
    """Nodes that read rows of `kept` ids [V] from an 8-bit table and the others from a 4-bit table: float32 [B, S, H].

    The first is read for every token, at some row that exists, and the rare ones are then put in their places.
    """
    eights = int(kept.sum())
    places = np.empty(len(kept), np.int32)  # the row of an id in the two tables put one after the other
    places[kept], places[~kept] = np.arange(eights), np.arange(eights, len(kept))
    found = tape.op("Gather", [add_constant(graph, "embedding.places", places), tokens])
    place = tape.op("Cast", [found], {"to": ir.DataType.INT64})  # ONNX Runtime's GatherND for CUDA takes no int32
    first = add_constant(graph, "embedding.first_of_4_bits", np.array(eights))
    last = add_constant(graph, "embedding.last_of_8_bits", np.array(eights - 1))
    eight = _gather(graph, tape, table[kept], tape.op("Min", [place, last]), 8)
    # 4 bits are ten times as slow to expand (docs/log.md, 2026-11-28), so they are for those that have no more
    rare = tape.op("Transpose", [tape.op("NonZero", [tape.op("Less", [last, place])])], {"perm": [1, 0]})  # [n, 2]
    four = _gather(graph, tape, table[~kept], tape.op("GatherND", [tape.op("Sub", [place, first]), rare]), 4)
    return tape.op("ScatterND", [eight, rare, four])


def _stored(values: NDArray[np.uint8], bits: int) -> NDArray[Any]:
    """As the operator wants it: uint8, or uint4, which ONNX packs two to a byte."""
    return values if bits == 8 else values.astype(ml_dtypes.uint4)


def token_lookup(graph: ir.Graph) -> ir.Node:
    """The node that looks `tokens` up in a constant table [V, H]. Raises ValueError when there is none."""
    tokens = next(value for value in graph.inputs if value.name == "tokens")
    for node in tokens.consumers():
        table = constant(node.inputs[0]) if node.op_type == "Gather" else None
        if table is not None and table.ndim == 2 and node.attributes.get_int("axis", 0) == 0:
            return node
    raise ValueError("the graph looks up `tokens` in no constant table")
