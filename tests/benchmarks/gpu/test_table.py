"""Every target has a line with what was measured; what is missing or failed is said, never left out."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from benchmarks.gpu.table import STEPS, read, table

GIB = 1 << 30
CASE = {"shape": "base", "checkpointing": False, "paged": True, "peak_bytes": GIB}
RESULTS: dict[str, dict[str, Any]] = {
    "peak": {"fp16_operations_per_second": 800e12},
    "scoring": {
        "ways": {
            "qe-edge-fp16": {"rows_per_second": 7000.0, "qe_edge_is_faster": 1.0},
            "transformers": {"rows_per_second": 1000.0, "qe_edge_is_faster": 7.0},
        }
    },
    "scoring-1.5b": {
        "ways": {
            "qe-edge-fp16": {
                "rows_per_second": 500.0,
                "operations_per_second": 400e12,
                "graph_operations_per_second": 440e12,
            }
        }
    },
    "memory-scoring": {
        "cases": [
            {
                "name": "base/fp16",
                "card_gib": None,
                "fits": True,
                "held_bytes": 3 * GIB,
                "weight_bytes": 2 * GIB,
                "activation_bytes": GIB,
            },
            {"name": "base/fp16", "card_gib": 4, "fits": False, "reason": "CUDA out of memory"},
        ]
    },
    "training": {
        "cases": [
            {**CASE, "loop": "qe-edge", "tokens_per_second": 3000.0},
            {**CASE, "loop": "plain", "tokens_per_second": 1500.0},
        ]
    },
    "placement": {"bundles": {"base/fp16": {"on_cpu": 0, "on_cpu_nodes": []}}},
    "parity": {
        "bundles": {
            "base/fp16": {"point": 1.0, "after a prefix": {"rows": 9, "cpu_and_device": 0.02, "batch_and_order": 0.01}},
            "base/int4": {"point": 1.0, "after a prefix": {"rows": 9, "cpu_and_device": 2.0, "batch_and_order": 0.01}},
        }
    },
}


def changed(step: str, **values: Any) -> dict[str, dict[str, Any]]:
    results = copy.deepcopy(RESULTS)
    results[step] |= values
    return results


def test_all_targets_met() -> None:
    text, met = table(RESULTS, {})

    assert met
    assert "at least 6 times | 7.00 times | yes |" in text
    assert "50.0%; the graph alone 55.0% of 800 TFLOP/s | yes |" in text
    assert "3.00 GiB, 1.00 times | yes |" in text
    assert "3000 and 1500, 2.00 times; 1.00 and 1.00 GiB | yes |" in text
    assert "| scores of base/fp16: CPU and GPU; batch and order | at most 0.05 points | 0.0200; 0.0100 | yes |" in text
    assert "| scores of base/int4: CPU and GPU; batch and order |  | 2.0000; 0.0100 |  |" in text
    assert "does not fit: CUDA out of memory" in text


def test_a_target_that_is_missed_is_marked() -> None:
    text, met = table(changed("peak", fp16_operations_per_second=1000e12), {})

    assert not met
    assert "40.0%; the graph alone 44.0% of 1000 TFLOP/s | **no** |" in text


def test_a_rehearsal_meets_no_target() -> None:
    text, met = table(changed("scoring", device="cpu"), {})

    assert not met
    assert "7.00 times (rehearsed on a CPU) | **no** |" in text


def test_a_node_on_the_cpu_is_named() -> None:
    fallen = {"base/fp16": {"on_cpu": 1, "on_cpu_nodes": ["Gather node_7"]}}

    text, met = table(changed("placement", bundles=fallen), {})

    assert not met
    assert "| nodes on the CPU, base/fp16 | none | 1 Gather node_7 | **no** |" in text


def test_what_was_not_measured_is_a_target_missed() -> None:
    without = {step: result for step, result in RESULTS.items() if step != "parity"}

    text, met = table(without, {"parity": "did not run"})

    assert not met
    assert "| scores on CPU and GPU |  | not measured: no parity | **no** |" in text
    assert "| step parity |  | did not run |  |" in text


def test_a_step_that_was_stopped_early_says_what_it_lacks() -> None:
    text, met = table(changed("scoring", ways={}), {"scoring": "stopped at its time limit"})

    assert not met
    assert "not measured: scoring has no 'transformers'" in text
    assert "| step scoring |  | stopped at its time limit |  |" in text


def test_cases_that_are_all_missing_are_no_success() -> None:
    text, met = table(changed("training", cases=[]), {})

    assert not met
    assert "| QLoRA tokens/s against the plain loop |  | not measured: nothing in training | **no** |" in text


def test_what_the_steps_left_behind_is_read(tmp_path: Path) -> None:
    (tmp_path / "peak.json").write_text(json.dumps(RESULTS["peak"]))
    (tmp_path / "peak.exit").write_text("0\n")
    (tmp_path / "scoring.json").write_text(json.dumps(RESULTS["scoring"]))
    (tmp_path / "scoring.exit").write_text("124\n")
    (tmp_path / "parity.exit").write_text("1\n")
    (tmp_path / "parity.log").write_text("Traceback\nValueError: scores that are not finite numbers\n\n")

    results, faults = read(tmp_path)

    assert results == {"peak": RESULTS["peak"], "scoring": RESULTS["scoring"]}
    assert faults.pop("scoring") == "stopped at its time limit"
    assert faults.pop("parity") == "failed with exit code 1: ValueError: scores that are not finite numbers"
    assert set(faults.values()) == {"did not run"}
    assert len(faults) == len(STEPS) - 3


def test_the_steps_are_those_of_the_command(repository: Path) -> None:
    script = (repository / "benchmarks" / "gpu" / "acceptance.sh").read_text(encoding="utf-8")

    assert tuple(line.split()[1] for line in script.splitlines() if line.startswith("step ")) == STEPS
