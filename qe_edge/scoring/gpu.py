"""Memory of a GPU: how much of it is left, and how many tokens of a batch fit into that."""

from __future__ import annotations

import os
from collections.abc import Callable

from qe_edge.errors import DeviceError

SPENT = 0.8
"""Part of the memory left that a batch may take; the rest is for what lies between blocks of the allocator."""
MOST_TOKENS = 1 << 15
"""Padded tokens of a batch at most: more keep no GPU busier (an estimate, not measured yet)."""
PROBED_ROWS = 8


def free_bytes() -> int:
    """Memory that is free on the first GPU that CUDA may use. Raises DeviceError when the driver does not say."""
    try:
        import pynvml
    except ImportError:
        raise DeviceError("--device cuda: the package nvidia-ml-py is missing; install qe-edge[cuda]") from None
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0].strip()
    try:
        pynvml.nvmlInit()
        try:
            handle = (
                pynvml.nvmlDeviceGetHandleByIndex(int(first))
                if first.isdigit()
                else pynvml.nvmlDeviceGetHandleByUUID(first)
            )
            return int(pynvml.nvmlDeviceGetMemoryInfo(handle).free)
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError as error:
        raise DeviceError(
            f"--device cuda: the driver does not tell the free memory ({error}); use --device cpu"
        ) from None


class GpuMemory:
    """What is left of a GPU's memory for this process, counted from now on.

    limit: most bytes that may be taken in all, or None for what is free; free: tells the free bytes of the device.
    """

    def __init__(self, limit: int | None = None, free: Callable[[], int] = free_bytes) -> None:
        self._free = free
        self._limit = limit
        self._before = free()

    def left(self) -> int:
        """Bytes that can still be taken."""
        free = self._free()
        return free if self._limit is None else min(free, self._limit - (self._before - free))


def token_budget(run_longest: Callable[[int], object], token_limit: int, left: Callable[[], int]) -> int:
    """Padded tokens that a batch may have: what is left of the memory, by what a token has been seen to take.

    run_longest: runs a batch of so many rows of `token_limit` tokens, which take the most for each token; left: bytes
    that can still be taken. At least one such row; a batch that does not fit all the same is run in parts (`Engine`).
    """
    try:
        run_longest(1)  # sets up the libraries, which take memory of their own
        before = left()
        run_longest(PROBED_ROWS)
    except MemoryError:
        return token_limit
    taken, probed = before - left(), PROBED_ROWS * token_limit
    if taken <= 0:
        return MOST_TOKENS
    return min(MOST_TOKENS, max(token_limit, int(SPENT * before * probed / taken)))
