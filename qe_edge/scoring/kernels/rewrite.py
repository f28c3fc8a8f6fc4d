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

from qe_edge.scoring.kernels.library import AVX2, library
from qe_edge.scoring.kernels.onnx_bytes import Node, with_nodes
from qe_edge.scoring.kernels.packing import Unit, Weights, pack, unit_of_bf16, unit_of_int8
from qe_edge.scoring.kernels.patterns import DOMAIN, EXTEND, Patterns
from qe_edge.scoring.kernels.values import NOTES
from qe_edge.verification.onnx_fields import GRAPH
from qe_edge.verification.wire import Message, WireError

WITH_KERNELS = "cpu with kernels"
IN_FLOAT32 = "cpu with kernels in float32"
"""on a processor with AVX-512, but without products of bf16 for attention"""
FOR_AVX2 = "cpu with kernels for AVX2"


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
    runs_on: str


def with_kernels(path: Path, head_dim: int) -> Rewritten | None:
    """A graph with nodes of the kernels, or None: none matches, or this machine has no kernels.

    head_dim: size of an attention head, as the bundle records it. Raises OSError and ValueError for weights that cannot
    be read, and MemoryError.
    """
    plan = _plan(path, head_dim)
    if plan is None:
        return None
    packed = pack(plan.library, path.parent, plan.weights)
    notes = {name + NOTES: tensor.notes for name, tensor in packed.items()}
    expanded = {name: one.integers for name, one in plan.weights.items() if one.expanded}
    inputs = [EXTEND] if plan.fused["AttendQuantize"] else []
    written = with_nodes(plan.model, plan.nodes, DOMAIN, inputs, notes, expanded)
    given = {name.decode(): tensor.weights for name, tensor in packed.items()}
    return Rewritten(plan.library, written, given, bool(inputs), plan.fused, plan.runs_on)


def runs_on(path: Path, head_dim: int) -> str:
    """What a graph runs on, on a CPU, without loading it. Scores of two answers differ in more than last digits."""
    plan = _plan(path, head_dim)
    return "cpu" if plan is None else plan.runs_on


@dataclass(frozen=True)
class _Plan:
    """How a graph becomes one that uses kernels."""

    library: Path
    model: bytes
    nodes: list[Node]
    weights: dict[bytes, Weights]
    """of products that kernels take"""

    @property
    def fused(self) -> Counter[str]:
        return Counter(node.operator for node in self.nodes if node.domain == DOMAIN)

    @property
    def runs_on(self) -> str:
        if self.library.name == AVX2:
            return FOR_AVX2
        return IN_FLOAT32 if unit_of_bf16(self.library) is Unit.NONE else WITH_KERNELS


def _plan(path: Path, head_dim: int) -> _Plan | None:
    kernels = library()
    if kernels is None or not path.is_file():
        return None
    model = path.read_bytes()
    try:
        graph = Patterns(Message(Message(model, None).one_bytes(GRAPH), None))
    except WireError:
        return None  # no graph; ONNX Runtime says so
    products = {} if unit_of_int8(kernels) is Unit.NONE else graph.products()
    weights = {name: graph.weights[name] for name in products.values()}
    made: dict[bytes, Node] = {}
    for node in graph.fused(head_dim, products):
        if made.keys().isdisjoint(node.outputs):
            made |= dict.fromkeys(node.outputs, node)
    if not made or not graph.names.isdisjoint([EXTEND.encode(), *(name + NOTES for name in weights)]):
        return None
    replaced = made.keys() | weights.keys()
    kept = [node for node in graph.nodes if replaced.isdisjoint(node.outputs)]
    return _Plan(kernels, model, list(_needed([*made.values(), *kept], graph.outputs)), weights)


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
