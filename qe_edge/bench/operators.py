"""What the operators of a graph take, from ONNX Runtime's own profile."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from qe_edge.bundle import Bundle
from qe_edge.scoring.denormals import flush_denormals
from qe_edge.scoring.graph import Graph, KeyValueShape
from qe_edge.scoring.scorer import Job

INT8_PRODUCTS = ("MatMulIntegerToFloat", "MatMulInteger", "Linear", "LinearAddNormQuantize", "GatedQuantize")
FLOAT_PRODUCTS = ("MatMul", "Gemm", "FusedMatMul", "MatMulNBits", "Attention", "AttendQuantize")
FINISHED = "_kernel_time"
"""ends the name of the event that says how long a node took"""


@dataclass
class Operator:
    """All nodes of one operator."""

    name: str
    seconds: float = 0.0
    calls: int = 0
    operations: int = 0
    """multiplications and additions of matrix products; those of attention include what the mask hides"""


@dataclass(frozen=True)
class Profile:
    """What some batches took, on one worker, with the time that profiling adds to each node."""

    operators: list[Operator]
    """slowest first"""
    tokens: int
    """of the rows' bodies, without padding"""

    @property
    def seconds(self) -> float:
        return sum(operator.seconds for operator in self.operators)

    def operations(self, names: Sequence[str]) -> float:
        """Multiplications and additions of operators with these names, padding included, for each token."""
        return sum(operator.operations for operator in self.operators if operator.name in names) / self.tokens


def profile(bundle: Bundle, jobs: Sequence[Job]) -> Profile:
    """Run the rows of some jobs on one worker and look at every node. Families are run as plain rows."""
    spec = bundle.spec
    shape = KeyValueShape(spec.blocks_kept, spec.kv_heads, spec.head_dim)
    batches = [(job.past, [job.bodies[row] for family in job.unit for row in family.rows]) for job in jobs]
    with TemporaryDirectory(prefix="qe-edge-bench-") as folder:
        graph = Graph(bundle.model, shape, profile=Path(folder) / "profile")
        with ThreadPoolExecutor(1, initializer=flush_denormals) as worker:  # as the engine's are
            # the first run allocates memory, and does not count
            list(worker.map(graph.scores, *zip(batches[0], strict=True)))
            graph.use_huge_pages()
            list(worker.map(graph.scores, *zip(*batches, strict=True)))
        events = json.loads(graph.end_profile().read_text(encoding="utf-8"))
    nodes = [event for event in events if event.get("cat") == "Node" and event["name"].endswith(FINISHED)]
    nodes = nodes[len(nodes) // (len(batches) + 1) :]
    found: dict[str, Operator] = defaultdict(lambda: Operator(""))
    for node in nodes:
        arguments = node["args"]
        operator = found[arguments["op_name"]]
        operator.name = arguments["op_name"]
        operator.seconds += node["dur"] * 1e-6
        operator.calls += 1
        if operator.name in (*INT8_PRODUCTS, *FLOAT_PRODUCTS):
            operator.operations += _operations(arguments)
    tokens = sum(len(body) for _, bodies in batches for body in bodies)
    return Profile(sorted(found.values(), key=lambda operator: -operator.seconds), tokens)


def _operations(arguments: dict[str, Any]) -> int:
    """Multiplications and additions of a product [.., n] by [n, m], of two for a gate, or of attention's two products.

    Attention reads queries [B, N, S, D] and keys [B, G, T, D], and each query meets all T keys; the kernel of attention
    reads queries [B, S, N * D] and, as its eighth input, a mask [1, 1, S, T].
    """
    read, written = arguments["input_type_shape"], arguments["output_type_shape"]
    if arguments["op_name"] == "AttendQuantize":
        return 4 * prod(_shape(read[0])) * _shape(read[7])[3]
    if arguments["op_name"] == "Attention":
        return 4 * prod(_shape(read[0])) * _shape(read[1])[2]
    products = 2 if arguments["op_name"] == "GatedQuantize" else 1
    return products * 2 * _shape(read[0])[-1] * prod(_shape(written[0]))


def _shape(tensor: dict[str, list[int]]) -> list[int]:
    """Of a tensor that the profile describes as {type: shape}."""
    (shape,) = tensor.values()
    return shape
