"""The memory of a GPU is told by its driver, and shared out by what a token takes, under a limit if there is one."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any

import pytest

from qe_edge.errors import DeviceError
from qe_edge.scoring import gpu
from qe_edge.scoring.gpu import MOST_TOKENS, PROBED_ROWS, free_bytes, token_budget

GIB = 1 << 30
LIMIT = 512
"""tokens of the longest row"""
PROBED = PROBED_ROWS * LIMIT


class Card:
    """A GPU on which a batch takes memory that its allocator keeps, and fits into again."""

    def __init__(self, free: int, a_token: int, libraries: int = 0) -> None:
        self.free, self.a_token, self.libraries = free, a_token, libraries

    def run(self, tokens: int) -> None:
        needed = self.libraries + tokens * self.a_token
        if needed > self.free:
            raise MemoryError
        self.libraries = 0
        self.free -= needed


def budget(card: Card, most: int | None = None) -> int:
    return token_budget(lambda rows: card.run(rows * LIMIT), LIMIT, most, lambda: card.free)


def test_a_batch_gets_four_fifths_of_what_is_left_whatever_the_libraries_took() -> None:
    card = Card(free=6 * GIB, a_token=200 << 10, libraries=GIB)
    left = 5 * GIB - (LIMIT + PROBED) * card.a_token
    assert PROBED < budget(card) == int(0.8 * left / card.a_token) < MOST_TOKENS


def test_a_limit_counts_instead_of_what_is_free() -> None:
    card = Card(free=100 * GIB, a_token=100 << 10)
    assert budget(card, most=GIB) == int(0.8 * (GIB - PROBED * card.a_token) / card.a_token)
    assert budget(Card(free=100 * GIB, a_token=100 << 10), most=GIB >> 4) == PROBED  # which has been seen to fit


def test_more_memory_than_can_be_used_ends_at_the_most() -> None:
    assert budget(Card(free=1000 * GIB, a_token=1 << 10)) == MOST_TOKENS


def test_what_cannot_be_told_from_nothing_gives_what_was_run() -> None:
    assert budget(Card(free=GIB, a_token=0)) == PROBED


@pytest.mark.parametrize("rows", [0.5, 1.5, PROBED_ROWS])
def test_a_card_too_small_for_the_probe_runs_one_longest_row_at_a_time(rows: float) -> None:
    assert budget(Card(free=int(rows * LIMIT * 1000), a_token=1000)) == LIMIT


class Driver:
    """A stand-in for NVIDIA's library, which tells 7 GiB free unless one of its functions fails."""

    def __init__(self, failing: str = "") -> None:
        self.failing, self.pushed = failing, 0

    def __getattr__(self, name: str) -> Any:
        def called(*arguments: Any) -> int:
            if name == self.failing:
                return 100
            if name == "cuMemGetInfo_v2":
                assert self.pushed == 1
                arguments[0]._obj.value = 7 * GIB
            self.pushed += {"cuCtxPushCurrent_v2": 1, "cuCtxPopCurrent_v2": -1}.get(name, 0)
            return 0

        return called


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    gpu._first_gpu.cache_clear()
    yield
    gpu._first_gpu.cache_clear()


def test_the_driver_tells_what_is_free_and_no_context_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: driver)
    assert free_bytes() == free_bytes() == 7 * GIB
    assert driver.pushed == 0


@pytest.mark.parametrize("failing", ["cuInit", "cuDeviceGet", "cuDevicePrimaryCtxRetain", "cuMemGetInfo_v2"])
def test_a_driver_that_refuses_is_a_device_error(failing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver(failing)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: driver)
    with pytest.raises(DeviceError, match=rf"refuses {failing.removesuffix('_v2')} \(status 100\); use --device cpu"):
        free_bytes()
    assert driver.pushed == 0


def test_a_machine_without_a_driver_is_a_device_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "DRIVER", "no-such-driver.so.1")
    with pytest.raises(DeviceError, match=r"no driver \(no-such-driver"):
        free_bytes()
