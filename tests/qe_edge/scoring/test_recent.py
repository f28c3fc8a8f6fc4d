"""What is kept of recent rows comes back as it was, and takes no more memory however many there are."""

from __future__ import annotations

from hashlib import blake2b

import pytest

from qe_edge.scoring import recent
from qe_edge.scoring.recent import RecentScores


def digest(row: int) -> bytes:
    return blake2b(row.to_bytes(8), digest_size=16).digest()


def test_what_is_kept_comes_back_as_it_was() -> None:
    kept = RecentScores()
    scores = {digest(0): (71.25, False), digest(1): (-0.0, True), digest(2): (1 / 3, False)}

    kept.keep(scores)
    found = kept.known([digest(2), digest(9), digest(0), digest(1)])

    assert found == scores
    assert str(found[digest(1)]) == "(-0.0, True)"
    assert RecentScores().known(scores) == {}


def test_a_full_group_forgets_what_came_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent, "GROUPS", 1)
    monkeypatch.setattr(recent, "PLACES", 3)
    kept = RecentScores()

    for row in (0, 1, 2, 0, 3):  # the second 0 is kept already
        kept.keep({digest(row): (float(row), row % 2 == 1)})

    assert kept.known(map(digest, range(5))) == {digest(row): (float(row), row % 2 == 1) for row in (1, 2, 3)}
    kept.keep({digest(4): (4.0, False)})
    assert kept.known(map(digest, range(5))).keys() == {digest(2), digest(3), digest(4)}


def test_a_digest_across_two_places_is_no_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent, "GROUPS", 1)
    kept = RecentScores()
    kept.keep({digest(0): (1.0, False), digest(1): (2.0, False)})

    assert kept.known([digest(0)[8:] + digest(1)[:8], digest(1)[8:] + bytes(8)]) == {}


def test_recent_rows_are_known_old_ones_are_not_and_memory_stays() -> None:
    kept = RecentScores()
    sizes = {name: len(value) for name, value in vars(kept).items()}

    for start in range(0, 300_000, 500):
        kept.keep({digest(row): (row / 7, row % 3 == 0) for row in range(start, start + 500)})

    found = kept.known(map(digest, range(300_000)))
    assert all(found[key] == (row / 7, row % 3 == 0) for row in range(300_000) if (key := digest(row)) in found)
    assert sum(digest(row) in found for row in range(291_000, 300_000)) >= 8_995
    assert sum(digest(row) in found for row in range(100_000)) <= 50
    assert {name: len(value) for name, value in vars(kept).items()} == sizes
