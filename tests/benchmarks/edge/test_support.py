"""What the table of runtimes says follows from the graph and from what a runtime gave, and nothing is left out."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.edge.session import nodes_by_provider
from benchmarks.edge.support import Runtime, attempt, compared, key_value, markdown, operators, runtimes, tried
from benchmarks.edge.tensorrt import LACKING, TAKEN, lacking
from qe_edge.bundle import EMBEDDED_BUNDLE, MODEL_FILE, open_bundle
from qe_edge.verification.operators import CONTRIB, CONTRIB_OPERATORS, OPERATORS

MODEL = EMBEDDED_BUNDLE / MODEL_FILE


def test_operators_are_counted_by_domain() -> None:
    found = operators(MODEL)

    blocks = open_bundle(EMBEDDED_BUNDLE).spec.blocks_kept
    assert found["opsets"] == {"ai.onnx": 23, "com.microsoft": 1}
    assert found["operators"]["Attention"] == blocks
    assert found["operators"]["com.microsoft.MatMulIntegerToFloat"] > blocks
    assert "MatMulIntegerToFloat" not in found["operators"]


def test_the_shape_of_keys_and_values_is_read_from_the_graph() -> None:
    spec = open_bundle(EMBEDDED_BUNDLE).spec

    assert key_value(MODEL) == (spec.blocks_kept, spec.kv_heads, spec.head_dim)


def test_every_operator_of_a_bundle_is_known_to_be_taken_or_lacking() -> None:
    contrib = {f"{CONTRIB}.{operator}" for operator in CONTRIB_OPERATORS}

    assert TAKEN | LACKING.keys() == OPERATORS | contrib
    assert not TAKEN & LACKING.keys()
    assert lacking(["MatMul", "QuantizeLinear", "com.microsoft.MatMulNBits"]).keys() == {
        "QuantizeLinear",
        "com.microsoft.MatMulNBits",
    }
    with pytest.raises(KeyError, match="Loop"):
        lacking(["Loop"])


def test_a_node_counts_once_however_often_it_ran() -> None:
    def event(name: str, operator: str, provider: str) -> dict[str, object]:
        return {"cat": "Node", "name": f"{name}_kernel_time", "args": {"op_name": operator, "provider": provider}}

    events = [event("a", "Add", "CPU"), event("a", "Add", "CPU"), event("b", "Add", "CPU"), event("c", "Mul", "GPU")]

    assert nodes_by_provider([*events, {"cat": "Session", "name": "run", "args": {}}]) == {
        "CPU": {"Add": 2},
        "GPU": {"Mul": 1},
    }


def test_differences_are_those_of_scores_of_all_states_and_of_the_first_block() -> None:
    two_blocks = np.full((4, 1, 1, 2, 2), 2.0, np.float32)
    reference = {"score": np.array([10.0, 20.0], np.float32), "states": two_blocks}
    outputs = {"score": np.array([10.5, 19.0], np.float32), "states": two_blocks.copy()}
    outputs["states"][2:] = 3.0

    expected = {"score_difference": 1.0, "state_error": 0.5 / 2**0.5, "first_block_error": 0.0}
    assert compared(outputs, reference) == pytest.approx(expected)


def test_a_runtime_that_is_not_there_or_dies_is_a_failure_with_its_message(tmp_path: Path) -> None:
    (tmp_path / "inputs.npz").touch()
    broken = Runtime("broken", "no-such-runtime", (sys.executable, "-c", "raise SystemExit('no luck')"), {})

    found = attempt(broken, MODEL, tmp_path / "inputs.npz", tmp_path / "outputs.npz")

    assert found == {"failed": "process", "message": "no luck (exit code 1)"}


def test_the_embedded_bundle_runs_in_the_reference_and_agrees_with_itself(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repository)
    reference = runtimes(tmp_path)[0]
    again = Runtime("again", reference.kind, reference.command, {})

    found = tried(MODEL, [reference, again], tmp_path)

    assert len(found["onnxruntime"]["scores"]) == 4
    assert found["onnxruntime"]["nodes"]["CPUExecutionProvider"]["Attention"] == key_value(MODEL)[0]
    assert found["again"]["score_difference"] == found["again"]["state_error"] == 0
    assert markdown({"embedded": {"runtimes": found}}, ["onnxruntime", "again", "other"]).splitlines()[-1] == (
        "| embedded | reference | 0.0000 |  |"
    )
