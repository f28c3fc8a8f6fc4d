"""Scores of recent rows, so that a row that soon comes again is not run again."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping

from qe_edge.cache import Known

DIGEST = 16
"""bytes of a row's digest"""
GROUPS = 1 << 13
PLACES = 8
"""in a group, 65,536 in all: of 1,000 rows 1 is forgotten after 16,384 others, 51 after 32,768"""


class RecentScores:
    """Scores by the digests of their rows, in memory that is taken once: 25 bytes each, where objects that come and go
    among those of all other work would hold ten times as much.

    A digest's first bytes tell its group; in a full group the score that came first makes room, however often it was
    asked for since.
    """

    def __init__(self) -> None:
        self._digests = bytearray(GROUPS * PLACES * DIGEST)
        self._scores = array("d", bytes(GROUPS * PLACES * 8))
        self._truncated = bytearray(GROUPS * PLACES)
        self._next = bytearray(GROUPS)
        """the place of each group that is filled next"""

    def known(self, rows: Iterable[bytes]) -> dict[bytes, Known]:
        """The scores of those rows, given by their digests, that are kept."""
        found: dict[bytes, Known] = {}
        for row in rows:
            place = self._place(row)
            if place is not None:
                found[row] = (self._scores[place], bool(self._truncated[place]))
        return found

    def keep(self, scores: Mapping[bytes, Known]) -> None:
        """Add the scores of rows that are not kept yet."""
        for row, (score, truncated) in scores.items():
            if self._place(row) is None:
                group = _group(row)
                place = group * PLACES + self._next[group]
                self._digests[place * DIGEST : (place + 1) * DIGEST] = row
                self._scores[place] = score
                self._truncated[place] = truncated
                self._next[group] = (self._next[group] + 1) % PLACES

    def _place(self, row: bytes) -> int | None:
        start = _group(row) * PLACES * DIGEST
        found = self._digests.find(row, start, start + PLACES * DIGEST)
        return found // DIGEST if found >= 0 and found % DIGEST == 0 else None


def _group(row: bytes) -> int:
    return int.from_bytes(row[:4]) % GROUPS
