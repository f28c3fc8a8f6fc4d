"""The memory of a GPU is told by its driver, counted under a limit, and shared out by what a token takes."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from qe_edge.errors import DeviceError
from qe_edge.scoring.gpu import MOST_TOKENS, PROBED_ROWS, GpuMemory, free_bytes, token_budget

GIB = 1 << 30


class Card:
    """A GPU on which a batch takes memory that its allocator keeps."""

    def __init__(self, free: int, a_token: int, libraries: int = 0) -> None:
        self.free, self.a_token, self.libraries = free, a_token, libraries

    def run(self, tokens: int) -> None:
        needed = self.libraries + tokens * self.a_token
        if needed > self.free:
            raise MemoryError
        self.libraries = 0
        self.free -= needed


def budget(card: Card, limit: int | None = None, token_limit: int = 512) -> int:
    memory = GpuMemory(limit, lambda: card.free)
    return token_budget(lambda rows: card.run(rows * token_limit), token_limit, memory.left)


def test_a_batch_gets_four_fifths_of_what_is_left_whatever_the_libraries_took_first() -> None:
    card = Card(free=4 * GIB, a_token=200 << 10, libraries=GIB)
    left = 3 * GIB - 512 * card.a_token
    assert budget(card) == int(0.8 * left / card.a_token)


def test_a_limit_counts_what_was_taken_before() -> None:
    card = Card(free=100 * GIB, a_token=100 << 10)
    memory = GpuMemory(2 * GIB, lambda: card.free)
    card.free -= GIB  # the weights
    assert memory.left() == GIB
    assert GpuMemory(200 * GIB, lambda: card.free).left() == 99 * GIB


def test_more_memory_than_can_be_used_ends_at_the_most() -> None:
    assert budget(Card(free=1000 * GIB, a_token=1 << 10)) == MOST_TOKENS
    assert budget(Card(free=GIB, a_token=0)) == MOST_TOKENS


@pytest.mark.parametrize("rows", [0.5, 1.5, PROBED_ROWS])
def test_a_card_too_small_for_the_probe_runs_one_longest_row_at_a_time(rows: float) -> None:
    assert budget(Card(free=int(rows * 512 * 1000), a_token=1000)) == 512


def driver(**functions: Any) -> SimpleNamespace:
    """A stand-in for NVIDIA's library: no GPU is needed to see which of its functions are asked what."""

    class NVMLError(Exception):
        pass

    plain = {"NVMLError": NVMLError, "nvmlInit": lambda: None, "nvmlShutdown": lambda: None}
    memory = {"nvmlDeviceGetMemoryInfo": lambda handle: SimpleNamespace(free=handle)}
    return SimpleNamespace(**{**plain, **memory, **functions})


@pytest.mark.parametrize(
    ("visible", "free"), [(None, 100), ("0", 100), ("1", 101), ("1,0", 101), ("GPU-7b", 7), (" 1 ", 101)]
)
def test_the_first_gpu_that_cuda_may_use_is_asked(
    visible: str | None, free: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    functions = {
        "nvmlDeviceGetHandleByIndex": lambda number: 100 + number,
        "nvmlDeviceGetHandleByUUID": {"GPU-7b": 7}.__getitem__,
    }
    monkeypatch.setitem(sys.modules, "pynvml", driver(**functions))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert free_bytes() == free


def test_a_machine_without_a_driver_is_a_device_error(monkeypatch: pytest.MonkeyPatch) -> None:
    library = driver()

    def absent() -> None:
        raise library.NVMLError("NVML Shared Library Not Found")

    library.nvmlInit = absent
    monkeypatch.setitem(sys.modules, "pynvml", library)
    with pytest.raises(DeviceError, match=r"the free memory \(NVML Shared Library Not Found\); use --device cpu"):
        free_bytes()
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(DeviceError, match=r"nvidia-ml-py is missing; install qe-edge\[cuda\]"):
        free_bytes()
