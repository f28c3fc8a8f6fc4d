"""Which runtime runs the graph of which precision, by loading and running it, with the operators of each.

    python -m benchmarks.edge.graphs
    benchmarks/edge/prepare.sh
    python -m benchmarks.edge.support -o docs/edge/operators.json

The graphs are those of `benchmarks.edge.graphs` and the embedded bundle. Runtimes whose environment is not there are
left out and named. The reference is ONNX Runtime on this machine.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from benchmarks.edge.graphs import WORK
from benchmarks.edge.rows import sample_rows
from benchmarks.edge.tensorrt import lacking
from benchmarks.gpu.step import last_line, run, say
from qe_edge.bundle import EMBEDDED_BUNDLE, MODEL_FILE, PRECISIONS, open_bundle
from qe_edge.errors import InputError
from qe_edge.scoring.graph import pad

REFERENCE = "onnxruntime"
ARM_CPU = "neoverse-n1"
"""emulated: Armv8.2 with dot products"""
TIME_LIMIT = 3600
"""seconds for a graph in a runtime; emulated on a busy machine it takes long"""


@dataclass(frozen=True)
class Runtime:
    """How a runtime is started."""

    name: str
    kind: str
    """one of benchmarks.edge.session.RUNTIMES"""
    command: Sequence[str]
    """a Python that has it"""
    environment: Mapping[str, str]


def runtimes(work: Path) -> list[Runtime]:
    """All that can be tried, whether they are there or not; the reference first."""
    arm = (work / "arm").absolute()
    emulated = ("qemu-aarch64", "-cpu", ARM_CPU, "-L", str(arm), str(arm / "usr/bin/python3.11"))
    home = {"PYTHONHOME": str(arm / "usr"), "PYTHONPATH": str(arm / "site")}
    return [
        Runtime(REFERENCE, "onnxruntime", (sys.executable,), {}),
        Runtime("onnxruntime-arm", "onnxruntime", emulated, home),
        Runtime("openvino", "openvino", (str(work / "openvino/bin/python"),), {}),
        Runtime("onnxruntime-openvino", "onnxruntime-openvino", (str(work / "ort-openvino/bin/python"),), {}),
    ]


def operators(model: Path) -> dict[str, Any]:
    """Opset by domain, and how many nodes there are of each operator; those outside ai.onnx as domain.name."""
    content = onnx.load(model, load_external_data=False)
    counts = Counter(f"{node.domain}.{node.op_type}".lstrip(".") for node in content.graph.node)
    return {
        "opsets": {opset.domain or "ai.onnx": opset.version for opset in content.opset_import},
        "operators": dict(sorted(counts.items())),
    }


def key_value(model: Path) -> tuple[int, int, int]:
    """Blocks, key/value heads and head size, from the inputs of a graph."""
    inputs = onnx.load(model, load_external_data=False).graph.input
    keys = [value for value in inputs if value.name.startswith("past_key_")]
    _, heads, _, size = (dim.dim_value for dim in keys[0].type.tensor_type.shape.dim)
    return len(keys), heads, size


def attempt(runtime: Runtime, model: Path, inputs: Path, outputs: Path) -> dict[str, Any]:
    """What `benchmarks.edge.session` says, from a process of its own; a process that dies is a failure, too."""
    command = [*runtime.command, "-m", "benchmarks.edge.session", runtime.kind]
    environment = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", **runtime.environment}
    arguments = [str(path.absolute()) for path in (model, inputs, outputs)]
    try:
        done = subprocess.run(
            [*command, *arguments], capture_output=True, text=True, env=environment, timeout=TIME_LIMIT, check=False
        )
    except subprocess.TimeoutExpired:
        return {"failed": "process", "message": f"not done after {TIME_LIMIT} s"}
    if done.returncode:
        return {"failed": "process", "message": f"{last_line(done.stderr)} (exit code {done.returncode})"}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def compared(outputs: Mapping[str, NDArray[Any]], reference: Mapping[str, NDArray[Any]]) -> dict[str, float]:
    """Largest difference of a score, in points, and the distance of states relative to the reference's."""

    def error(blocks: slice) -> float:
        states = reference["states"][blocks].astype(np.float64)
        return float(np.linalg.norm(outputs["states"][blocks] - states) / np.linalg.norm(states))

    return {
        "score_difference": float(np.abs(outputs["score"] - reference["score"]).max()),
        "state_error": error(slice(None)),
        "first_block_error": error(slice(2)),
    }


def tried(model: Path, found: Sequence[Runtime], folder: Path) -> dict[str, Any]:
    """One graph in all runtimes. folder: for what is made on the way."""
    prefix, bodies = sample_rows()
    tokens, last = pad(bodies)
    inputs = folder / "inputs.npz"
    np.savez(inputs, prefix=np.array([prefix]), tokens=tokens, last=last, key_value=np.array(key_value(model)))
    results: dict[str, Any] = {}
    reference: dict[str, NDArray[Any]] = {}
    for runtime in found:
        outputs = folder / f"{runtime.name}.npz"
        said = attempt(runtime, model, inputs, outputs)
        if "failed" not in said:
            with np.load(outputs) as arrays:
                values = dict(arrays)
            if runtime.name == REFERENCE:
                reference = values
                said["scores"] = [round(float(score), 4) for score in values["score"]]
            else:
                said |= compared(values, reference)
        results[runtime.name] = said
    return results


def markdown(graphs: Mapping[str, Any], columns: Sequence[str]) -> str:
    """A row for each graph: the difference of scores where it runs, the stage that failed where not."""

    def cell(result: Mapping[str, Any] | None) -> str:
        if result is None:
            return ""
        if "failed" in result:
            return f"{result['failed']} fails"
        return f"{result['score_difference']:.4f}" if "score_difference" in result else "reference"

    rows = [[name, *(cell(graph["runtimes"].get(column)) for column in columns)] for name, graph in graphs.items()]
    lines = [["graph", *columns], ["---"] * (len(columns) + 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    options_of = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    options_of.add_argument("-o", "--output", type=Path, required=True, help="JSON file to write")
    options_of.add_argument("--work", type=Path, default=WORK, help=f"graphs and environments (default {WORK})")
    options = options_of.parse_args()
    models = {precision: options.work / "graphs" / precision / MODEL_FILE for precision in PRECISIONS}
    if missing := [str(model) for model in models.values() if not model.is_file()]:
        raise InputError(f"{missing[0]}: no such graph; make it with python -m benchmarks.edge.graphs")
    models["embedded (w8a8)"] = EMBEDDED_BUNDLE / MODEL_FILE
    every = runtimes(options.work)
    there = [runtime for runtime in every if Path(runtime.command[-1]).is_file() and shutil.which(runtime.command[0])]
    result: dict[str, Any] = {
        "rows": len(sample_rows()[1]),
        "embedded": open_bundle(EMBEDDED_BUNDLE).digest,
        "not_tried": [runtime.name for runtime in every if runtime not in there],
        "graphs": {},
    }
    for name, model in models.items():
        found = operators(model)
        with TemporaryDirectory(prefix="qe-edge-edge-") as folder:
            tensorrt = {"lacking": lacking(found["operators"])}
            result["graphs"][name] = {**found, "runtimes": tried(model, there, Path(folder)), "tensorrt": tensorrt}
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        say(name)
    columns = dict.fromkeys(column for graph in result["graphs"].values() for column in graph["runtimes"])
    print(markdown(result["graphs"], list(columns)))


if __name__ == "__main__":
    run(main)
