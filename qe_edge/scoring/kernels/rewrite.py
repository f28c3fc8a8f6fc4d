"""A graph made to use the kernels: patterns that an export writes become one node each.

What does not match stays as it is, so every graph runs; `w8a8` and `w4a8` with attention and SiLU as in Llama gain.
The file of the bundle is not changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qe_edge.scoring.kernels.library import library
from qe_edge.scoring.kernels.onnx_bytes import Node, with_nodes
from qe_edge.scoring.kernels.packing import Unit, pack, unit
from qe_edge.scoring.kernels.patterns import DOMAIN, EXTEND, SUMS, Patterns
from qe_edge.verification.onnx_fields import GRAPH
from qe_edge.verification.wire import Message, WireError


@dataclass(frozen=True)
class Rewritten:
    """A graph that needs the kernels."""

    library: Path
    model: bytes
    weights: Mapping[str, NDArray[np.int8]]
    """constants of the graph that ONNX Runtime must be given instead of reading them"""
    extends: bool
    """whether it has the input EXTEND"""
    fused: Counter[str]
    """nodes of each kernel"""


def with_kernels(path: Path, head_dim: int) -> Rewritten | None:
    """A graph with nodes of the kernels, or None: none matches, or this machine has no kernels.

    head_dim: size of an attention head, as the bundle records it.
    """
    kernels = library()
    if kernels is None or not path.is_file():
        return None
    model = path.read_bytes()
    try:
        graph = Patterns(Message(Message(model, None).one_bytes(GRAPH), None))
    except WireError:
        return None  # no graph; ONNX Runtime says so
    products = graph.products() if unit(kernels) is not Unit.NONE else {}
    made = {node.outputs: node for node in graph.fused(head_dim, products)}
    if not made:
        return None
    weights = {name: graph.weights[name] for name in products.values()}
    replaced = {name for outputs in made for name in outputs} | weights.keys()
    kept = [node for node in graph.nodes if not replaced.intersection(node.outputs)]
    nodes = list(_needed([*made.values(), *kept], graph.outputs))
    packed = pack(kernels, path.parent, weights)
    fused = Counter(node.operator for node in nodes if node.domain == DOMAIN)
    extends = "AttendQuantize" in fused
    sums = {name + SUMS: tensor.sums for name, tensor in packed.items()}
    expanded = {name: one.integers for name, one in weights.items() if one.expanded}
    written = with_nodes(model, nodes, DOMAIN, [EXTEND] if extends else [], sums, expanded)
    given = {name.decode(): tensor.weights for name, tensor in packed.items()}
    return Rewritten(kernels, written, given, extends, fused)


def _needed(nodes: Iterable[Node], outputs: Iterable[bytes]) -> Iterator[Node]:
    """The nodes that the outputs depend on. ONNX Runtime puts them in order."""
    makers = {name: node for node in nodes for name in node.outputs if name}
    todo, seen = list(outputs), set[tuple[bytes, ...]]()
    while todo:
        node = makers.get(todo.pop())
        if node is not None and node.outputs not in seen:
            seen.add(node.outputs)
            todo.extend(node.inputs)
            yield node
