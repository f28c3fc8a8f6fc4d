"""Denormal numbers, below about 1e-38, are taken for zero while workers compute.

A position that the mask of attention hides gets a weight of some 4e-39 from ONNX Runtime's exponential, not 0, and
Intel's processors multiply such numbers in a slow path: attention ran at half its speed (docs/log.md). No score depends
on numbers so small.

The control word belongs to a thread. ONNX Runtime's own option sets it for the thread that makes the process' first
session, whoever that is, so it is set here, for the threads of the workers alone.
"""

from __future__ import annotations

import ctypes
import platform
import sys

FLUSH_TO_ZERO = 1 << 15
"""bit of MXCSR: denormal results become 0"""
DENORMALS_ARE_ZERO = 1 << 6
"""bit of MXCSR: denormal operands count as 0"""
Environment = ctypes.c_uint32 * 8
"""`fenv_t` on x86-64 Linux, the same in glibc and musl: 28 bytes of the x87 unit's environment, then MXCSR"""
MXCSR = 7


def flush_denormals() -> None:
    """Let the calling thread take denormal numbers for zero, where that is known how: on Linux on x86-64.

    Elsewhere nothing happens, and nothing but speed depends on it. Threads that it starts from then on do the same.
    """
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return
    libm = ctypes.CDLL(None)
    environment = Environment()
    if hasattr(libm, "fesetenv") and libm.fegetenv(environment) == 0:
        environment[MXCSR] |= FLUSH_TO_ZERO | DENORMALS_ARE_ZERO
        libm.fesetenv(environment)
