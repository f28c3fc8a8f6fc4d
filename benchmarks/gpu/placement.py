"""Where every node of a bundle's graph ran, from ONNX Runtime's profile: none may fall back to the CPU.

    python -m benchmarks.gpu.placement base/fp16 base/int4 -o placement.json

What scoring does is run once: a prefix, beginnings of families after it, a batch of rows, and a row alone. The step
fails when a node of a CUDA session ran on the CPU provider; those nodes are listed.
"""

from __future__ import annotations

import json
import sys
import tempfile
from argparse import Namespace
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.gpu.rows import TINY_ROWS, body_tokens, rows_of_test20
from benchmarks.gpu.step import finish, made_bundle, parser, run, write
from qe_edge.bench.operators import FINISHED
from qe_edge.bundle import Bundle, open_bundle
from qe_edge.scoring.graph import PROVIDERS, Graph, KeyValueShape

BUNDLES = ("base/fp16", "base/int4", "base/int8", "base/fp32")
LISTED = 40
"""nodes on the CPU that are named; all are counted"""


def key_value_shape(bundle: Bundle) -> KeyValueShape:
    """The shape that a bundle records."""
    return KeyValueShape(bundle.spec.blocks_kept, bundle.spec.kv_heads, bundle.spec.head_dim)


def events(bundle: Bundle, options: Namespace) -> list[dict[str, Any]]:
    """An event of ONNX Runtime's profile for every time that a node ran."""
    rows = [row for row in rows_of_test20(options.data, TINY_ROWS) if row.pair == "et-en"]
    prefix, bodies = body_tokens(bundle, rows)
    with tempfile.TemporaryDirectory(prefix="qe-edge-gpu-") as folder:
        graph = Graph(bundle.model, key_value_shape(bundle), options.device, profile=Path(folder) / "profile")
        past = graph.prefix(prefix)
        begun = graph.extend(past, [bodies[0][:4], bodies[1][:3]])
        graph.scores(begun[0], [bodies[0][4:]])
        graph.scores(past, bodies)
        found = json.loads(graph.end_profile().read_text(encoding="utf-8"))
    return [event for event in found if event.get("cat") == "Node" and event["name"].endswith(FINISHED)]


def placement(bundle: Bundle, options: Namespace) -> dict[str, Any]:
    """How many nodes of which operator ran where, and which ran on the CPU."""
    nodes = {
        (event["name"].removesuffix(FINISHED), event["args"]["op_name"], event["args"]["provider"])
        for event in events(bundle, options)
    }
    by_provider: dict[str, Counter[str]] = {}
    for _, operator, provider in sorted(nodes):
        by_provider.setdefault(provider, Counter())[operator] += 1
    on_cpu = sorted(f"{operator} {name}" for name, operator, provider in nodes if provider == PROVIDERS["cpu"])
    return {"nodes": by_provider, "on_cpu": len(on_cpu), "on_cpu_nodes": on_cpu[:LISTED]}


def main() -> None:
    options_of = parser(__doc__)
    options_of.add_argument("bundles", nargs="*", default=BUNDLES, metavar="SHAPE/PRECISION", help="bundles to look at")
    options = options_of.parse_args()
    found: dict[str, Any] = {}
    result = {"device": options.device, "bundles": found}
    for name in options.bundles:
        shape, _, precision = name.partition("/")
        found[name] = placement(open_bundle(made_bundle(options, shape, precision)), options)
        write(options, result)
    finish(options, result)
    fallen = {name: one["on_cpu"] for name, one in found.items() if one["on_cpu"]}
    if fallen and options.device == "cuda":
        sys.exit(f"nodes on the CPU: {', '.join(f'{name} {count}' for name, count in fallen.items())}")


if __name__ == "__main__":
    run(main)
