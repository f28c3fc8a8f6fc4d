"""A stand-in for the scorer, so that the command line is tested without a model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import pytest

from qe_edge.rows import Row, Score, Status

WINDOW = 5


class CountingScorer:
    """Scores a row with the number of characters of its translation. A source that begins with "long" is truncated."""

    signature = "qe-edge 0.1.0 | bundle fake@0123456789ab | TL-11 | w8a8 | cpu"

    def close(self) -> None:
        pass

    def score(self, rows: Iterable[Row]) -> Iterator[Score]:
        stream = iter(rows)
        while window := list(islice(stream, WINDOW)):
            yield from map(self._score, window)

    def _score(self, row: Row) -> Score:
        if row.fault is not None:
            return Score(None, Status.INVALID)
        source, translation = row.texts
        if not source.strip():
            return Score(None, Status.EMPTY_SOURCE)
        if not translation.strip():
            return Score(None, Status.EMPTY_TRANSLATION)
        return Score(float(len(translation)), Status.TRUNCATED if source.startswith("long") else Status.OK)


@pytest.fixture
def counting_scorer(monkeypatch: pytest.MonkeyPatch) -> CountingScorer:
    """`qe-edge score` with this scorer instead of a bundle."""
    scorer = CountingScorer()
    monkeypatch.setattr("qe_edge.commands.score.load_scorer", lambda *_: scorer)
    return scorer
