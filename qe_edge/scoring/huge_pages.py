"""Memory in pages of 2 MB instead of 4 kB: a graph reads all of its weights for every batch, and the processor looks up
where a page lies far less often (docs/log.md, 2026-11-28: a sixth more rows a second on a virtual machine).

Linux gives such pages by itself where its administrator says `always`, and those who ask for them where he says
`madvise`, as most distributions do. ONNX Runtime does not ask.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")
"""the administrator's choice, in brackets"""
MAPS = Path("/proc/self/maps")
HUGE = 2 << 20
"""bytes of such a page on x86-64, and on Arm with pages of 4 kB"""
MADV_HUGEPAGE = 14
MADV_COLLAPSE = 25
"""at once, since Linux 6.1; earlier ones do it by and by"""

Span = tuple[int, int]


class MemorySince:
    """What the process takes from now on. Other memory is never touched."""

    def __init__(self) -> None:
        self._before: list[Span] | None = None
        with suppress(OSError):  # a kernel without huge pages, or no file left to open: nothing is moved
            if sys.platform == "linux" and "[madvise]" in SETTING.read_text(encoding="ascii"):
                self._before = _spans()

    def use_huge_pages(self) -> int:
        """Ask for huge pages where whole ones fit; returns for how many bytes.

        Contents and addresses stay, threads may go on using them. Takes .2 to .6 s for the embedded bundle, and next to
        nothing when repeated. 0 where the system has none for the asking; it may also decline, which costs speed alone.
        """
        if self._before is None:
            return 0
        libc, asked, spans = ctypes.CDLL(None), 0, list[Span]()
        with suppress(OSError, MemoryError):
            spans = _spans()
        for span in spans:
            for start, end in _without(span, self._before):
                first, last = -(-start // HUGE) * HUGE, end // HUGE * HUGE
                if first < last:
                    for advice in (MADV_HUGEPAGE, MADV_COLLAPSE):
                        libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), advice)
                    asked += last - first
        return asked


def _spans() -> list[Span]:
    """Addresses of memory of at least a huge page, writable and of no file, in ascending order.

    A line is `start-end rw-p offset device inode name`.
    """
    found = []
    for line in MAPS.read_text(encoding="utf-8", errors="replace").splitlines():
        addresses, access, _, _, inode, *name = line.split()
        if access == "rw-p" and inode == "0" and name in ([], ["[heap]"]):
            start, end = (int(address, 16) for address in addresses.split("-"))
            found += [(start, end)] * (end - start >= HUGE)
    return found


def _without(span: Span, others: Sequence[Span]) -> Iterator[Span]:
    """What of a span lies in none of the others: the kernel joins what is taken next to each other."""
    start, end = span
    for low, high in others:
        if start < high and low < end:
            if start < low:
                yield start, low
            start = high
    if start < end:
        yield start, end
