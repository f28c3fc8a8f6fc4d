"""Memory of a GPU: how much of it is free, and how many tokens of a batch fit into that."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

from qe_edge.errors import DeviceError

DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
SPENT = 0.8
"""Part of the memory left that a batch may take; the rest is for what lies between blocks of the allocator."""
MOST_TOKENS = 1 << 15
"""Padded tokens of a batch at most: more keep no GPU busier (an estimate, not measured yet)."""
PROBED_ROWS = 8


def free_bytes() -> int:
    """Memory that is free on the GPU that CUDA takes first, asked of its driver.

    Raises DeviceError when the driver is missing or refuses.
    """
    cuda, context = _first_gpu()
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    _check("cuCtxPushCurrent", cuda.cuCtxPushCurrent_v2(context))
    try:
        _check("cuMemGetInfo", cuda.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total)))
    finally:
        cuda.cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p()))
    return free.value


@cache
def _first_gpu() -> tuple[Any, ctypes.c_void_p]:
    """The driver's library, and the context of the first GPU that ONNX Runtime works in, too; kept while we run."""
    try:
        cuda = ctypes.CDLL(DRIVER)
    except OSError as error:
        raise DeviceError(f"--device cuda: no driver ({error}); use --device cpu") from None
    device, context = ctypes.c_int(), ctypes.c_void_p()
    _check("cuInit", cuda.cuInit(0))
    _check("cuDeviceGet", cuda.cuDeviceGet(ctypes.byref(device), 0))
    _check("cuDevicePrimaryCtxRetain", cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device))
    return cuda, context


def _check(called: str, status: int) -> None:
    if status:
        raise DeviceError(f"--device cuda: the driver refuses {called} (status {status}); use --device cpu")


def token_budget(
    run_longest: Callable[[int], object], token_limit: int, most: int | None, free: Callable[[], int] = free_bytes
) -> int:
    """Padded tokens that a batch may have: what is left of the memory, by what a token has been seen to take.

    run_longest: runs a batch of so many rows of `token_limit` tokens, which take the most for each token; most: bytes
    that batches may take, None for what is free; free: tells the free bytes. At least as many tokens as were run
    for this; a batch that does not fit all the same is run in parts (`Engine`).
    """
    probed = PROBED_ROWS * token_limit
    try:
        run_longest(1)  # sets up the libraries, which take memory of their own
        before = free()
        run_longest(PROBED_ROWS)
    except MemoryError:
        return token_limit
    left = free()
    taken = before - left
    if taken <= 0:
        return probed
    if most is not None:
        left = min(left, most - taken)
    return min(max(MOST_TOKENS, probed), max(probed, int(SPENT * left * probed / taken)))
