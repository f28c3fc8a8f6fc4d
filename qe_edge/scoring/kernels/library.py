"""The compiled kernels, where this machine can run them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from qe_edge.scoring.machine import CPU_FACTS

FOLDER = Path(__file__).resolve().parent
"""of the libraries, made when qe-edge is installed from source or built into a wheel (source/hatch_build.py)"""
AVX512, AVX2 = "x86-64-v4.so", "x86-64-v3.so"
_OF_AVX2 = {"avx2", "fma", "bmi1", "bmi2", "f16c", "movbe", "abm"}
NEEDED = {AVX2: _OF_AVX2, AVX512: _OF_AVX2 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}}
"""what Linux calls the instructions that tell the processors of each library from older ones"""
SWITCH = "QE_EDGE_KERNELS"
"""environment variable. `off`: ONNX Runtime's operators alone; `vectors`: kernels without AMX; `avx2`: kernels without
AVX-512; `pairs`: and without AVX-VNNI; `float32`: kernels without products of int8 and bf16"""


def library() -> Path | None:
    """The library for ONNX Runtime to load, or None: not built, switched off, or not for this processor."""
    switch = os.environ.get(SWITCH)
    if sys.platform != "linux" or switch == "off":
        return None
    found = _instructions()
    for name in [AVX2] if switch in ("avx2", "pairs") else [AVX512, AVX2]:
        if found >= NEEDED[name] and (FOLDER / name).is_file():
            return FOLDER / name
    return None


def _instructions() -> set[str]:
    """What the processor can do, in Linux's words."""
    for line in CPU_FACTS.read_text(encoding="utf-8", errors="replace").splitlines():
        name, _, flags = line.partition(":")
        if name.strip() == "flags":
            return set(flags.split())
    return set()
