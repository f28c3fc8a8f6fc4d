"""The graphs of the matrix peak are what they are said to be, and the peak is that of what they do."""

from __future__ import annotations

import importlib.util
import threading
from pathlib import Path
from types import ModuleType

import numpy as np
import onnxruntime as ort
import pytest

from qe_edge.bench import peak


@pytest.fixture(scope="module")
def written(repository: Path) -> ModuleType:
    """The script that writes the graphs."""
    spec = importlib.util.spec_from_file_location("graphs", repository / "benchmarks" / "matrix_peak_graphs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("kind", ["int8", "float32"])
def test_the_shipped_graphs_are_those_that_the_script_writes(kind: str, written: ModuleType) -> None:
    shipped = Path(peak.__file__).with_name(f"matmul_{kind}.onnx").read_bytes()
    assert shipped == getattr(written, f"{kind}_graph")().SerializeToString()


def test_the_int8_graph_multiplies_with_a_full_weight() -> None:
    graph = Path(peak.__file__).with_name("matmul_int8.onnx")
    session = ort.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(0).integers(0, 256, (peak.ROWS, peak.DEPTH)).astype(np.uint8)
    (y,) = session.run(None, {"x": x})
    expected = 3 * (x.astype(np.int64) - 128).sum(axis=1, keepdims=True)
    assert y.shape == (peak.ROWS, peak.WIDTH)
    assert (y == expected).all()


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_the_fastest_runs_of_all_workers_add_up(workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak, "time", Clock())
    assert peak.matrix_peak("float32", workers, seconds=3) == workers * peak.OPERATIONS


class Clock(threading.local):
    """Stands in for the module time: a second goes by whenever a thread looks, so every run takes one."""

    seconds = 0

    def perf_counter(self) -> float:
        self.seconds += 1
        return self.seconds
