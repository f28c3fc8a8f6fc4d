"""The compiled kernels, where this machine can run them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from qe_edge.scoring.machine import CPU_FACTS

LIBRARY = Path(__file__).resolve().parent / "x86-64-v4.so"
"""made when qe-edge is installed from source or built into a wheel (source/hatch_build.py)"""
NEEDED = {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl", "avx2", "fma", "bmi2"}
"""what Linux calls the instructions of x86-64-v4 that tell it from older processors"""
SWITCH = "QE_EDGE_KERNELS"
"""environment variable. `off`: ONNX Runtime's operators alone; `vectors`: kernels without AMX; `float32`: kernels
without products of int8 and bf16"""


def library() -> Path | None:
    """The library for ONNX Runtime to load, or None: not built, switched off, or not for this processor."""
    if sys.platform != "linux" or os.environ.get(SWITCH) == "off" or not LIBRARY.is_file():
        return None
    return LIBRARY if _instructions() >= NEEDED else None


def _instructions() -> set[str]:
    """What the processor can do, in Linux's words."""
    for line in CPU_FACTS.read_text(encoding="utf-8", errors="replace").splitlines():
        name, _, flags = line.partition(":")
        if name.strip() == "flags":
            return set(flags.split())
    return set()
