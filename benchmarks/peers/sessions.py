"""ONNX Runtime sessions; shared by the peers that run graphs in it."""

from __future__ import annotations

from pathlib import Path

import onnxruntime as ort


def open_session(model: Path, threads: int) -> ort.InferenceSession:
    """A session on the CPU with ONNX Runtime's own optimisations, all of them."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
