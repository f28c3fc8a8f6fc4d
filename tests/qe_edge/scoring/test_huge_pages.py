"""Memory that was taken since a moment lies in huge pages afterwards, and no other."""

from __future__ import annotations

import mmap
import sys
from pathlib import Path

import numpy as np
import pytest

from qe_edge.bundle import open_bundle
from qe_edge.rows import Row
from qe_edge.scoring import huge_pages
from qe_edge.scoring.huge_pages import HUGE, SETTING, MemorySince, Span, _without
from qe_edge.scoring.scorer import Scorer

COLLAPSE_SINCE = (6, 1)
"""Linux that moves memory at once"""
SIZE = 8 * HUGE


def has_them() -> bool:
    if sys.platform != "linux" or not SETTING.exists() or "[madvise]" not in SETTING.read_text():
        return False
    release = Path("/proc/sys/kernel/osrelease").read_text().split(".")
    return (int(release[0]), int(release[1])) >= COLLAPSE_SINCE


linux = pytest.mark.skipif(not has_them(), reason="Linux before 6.1, or an administrator who set always or never")


def block() -> tuple[mmap.mmap, np.ndarray]:
    """Memory of its own, filled."""
    memory = mmap.mmap(-1, SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    values = np.frombuffer(memory, np.uint8)
    values[:] = np.arange(SIZE) % 251
    return memory, values


def huge_bytes(values: np.ndarray) -> int:
    """Bytes in huge pages of the mappings that an array lies in."""
    begin, end, found, inside = values.ctypes.data, values.ctypes.data + len(values), 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        field, *rest = line.split()
        if "-" in field and not field.endswith(":"):
            low, high = (int(each, 16) for each in field.split("-"))
            inside = low < end and begin < high
        elif inside and field == "AnonHugePages:":
            found += int(rest[0]) << 10
    return found


@linux
def test_new_memory_is_moved_and_keeps_what_it_holds() -> None:
    kept, old = block()
    since = MemorySince()
    taken, new = block()
    assert huge_bytes(new) == 0

    asked = since.use_huge_pages()

    assert asked >= SIZE - HUGE
    assert huge_bytes(new) >= SIZE - 2 * HUGE
    np.testing.assert_array_equal(new, np.arange(SIZE) % 251)
    np.testing.assert_array_equal(old, new)
    assert since.use_huge_pages() >= SIZE - HUGE  # again, with nothing left to do
    del kept, taken


@linux
def test_memory_from_before_is_left_alone() -> None:
    kept = [block() for _ in range(3)]
    since = MemorySince()
    taken = [block() for _ in range(3)]  # which the kernel joins to those before
    asked = since.use_huge_pages()
    assert sum(huge_bytes(values) for _, values in taken) > 0
    assert asked < 2 * 3 * SIZE
    assert [huge_bytes(values) for _, values in kept] == [0, 0, 0]
    del kept, taken


@pytest.mark.parametrize(
    ("span", "others", "left"),
    [
        ((10, 20), [], [(10, 20)]),
        ((10, 20), [(0, 10), (20, 30)], [(10, 20)]),
        ((10, 20), [(5, 12), (14, 16), (19, 25)], [(12, 14), (16, 19)]),
        ((10, 20), [(10, 20)], []),
        ((10, 20), [(0, 40)], []),
        ((10, 20), [(12, 20)], [(10, 12)]),
    ],
)
def test_what_is_left_of_a_span(span: Span, others: list[Span], left: list[Span]) -> None:
    assert list(_without(span, others)) == left


@pytest.mark.parametrize("setting", ["always madvise [never]\n", "[always] madvise never\n", None])
def test_what_the_administrator_settled_stays(
    setting: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "enabled"
    if setting is not None:
        path.write_text(setting)
    monkeypatch.setattr(huge_pages, "SETTING", path)
    since = MemorySince()
    taken, new = block()
    assert since.use_huge_pages() == 0
    assert sys.platform != "linux" or huge_bytes(new) == 0
    del taken


def test_where_the_kernel_says_nothing_of_memory_nothing_is_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    early = MemorySince()
    monkeypatch.setattr(huge_pages, "MAPS", tmp_path / "missing")
    assert early.use_huge_pages() == 0
    assert MemorySince().use_huge_pages() == 0


def test_scores_stay_to_the_last_bit(counting_bundle: Path) -> None:
    rows = [Row((f"source {n}", f"translation {n}"), "et", "en") for n in range(50)]
    with Scorer.of(open_bundle(counting_bundle), device="cpu") as scorer:
        before = [score.value for score in scorer.score(rows)]
        scorer.engine.graph.use_huge_pages()
    with Scorer.of(open_bundle(counting_bundle), device="cpu") as scorer:
        scorer.engine.graph.use_huge_pages()
        assert [score.value for score in scorer.score(rows)] == before
