"""A written score is the same whatever is scored with it: on real rows of seven language pairs, byte for byte."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import pytest

from qe_edge import Row, Scorer
from qe_edge.scoring import batching
from qe_edge.scoring.engine import Engine
from qe_edge.table.items import Item, as_table_row
from qe_edge.table.table import open_table

FULL = os.environ.get("QE_EDGE_MLQE_PE")
"""folder with the files of MLQE-PE"""
ROWS = int(os.environ.get("QE_EDGE_DETERMINISM_ROWS", "60"))
"""first rows of each file; 0: all"""
PAIRS = ("en-de", "en-zh", "et-en", "ne-en", "ro-en", "ru-en", "si-en")
NEVER = 1 << 60
"""tokens that no family saves"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(FULL is None, reason="set QE_EDGE_MLQE_PE to a folder with the files of MLQE-PE"),
]


@pytest.fixture(scope="module")
def loaded() -> Scorer:
    return Scorer.load(device="cpu")


@pytest.mark.parametrize("pair", PAIRS)
def test_written_rows_are_the_same_in_any_company(loaded: Scorer, pair: str, monkeypatch: pytest.MonkeyPatch) -> None:
    items = read(pair)
    order = random.Random(7).sample(range(len(items)), len(items))
    usual = written(loaded, items, workers=1, budget=384)

    for workers in (1, 2):
        for budget in (64, 384, 4096):
            assert written(loaded, items, workers, budget) == usual, f"{workers} workers, budget {budget}"
    shuffled = written(loaded, [items[at] for at in order], workers=2, budget=384)
    assert shuffled == [usual[at] for at in order]

    listed = with_other_translations(items)
    shared = written(loaded, listed, workers=2, budget=384)
    monkeypatch.setattr(batching, "LEAST_SAVED", NEVER)
    assert written(loaded, listed, workers=2, budget=384) == shared
    assert shared[::3] == usual


def read(pair: str) -> list[Item]:
    """Rows of a test set, each once."""
    path = Path(str(FULL)) / f"test20.{pair.replace('-', '')}.df.short.tsv"
    with open_table(str(path), lp=pair) as table:
        return list(islice(table.items, ROWS or None))


def with_other_translations(items: Sequence[Item]) -> list[Item]:
    """Each row, and its source with the translations of the next two rows."""
    found = []
    for at, item in enumerate(items):
        for step in range(3):
            other = items[(at + step) % len(items)].row.texts[1]
            row = Row((item.row.texts[0], other), item.row.source_language, item.row.target_language)
            found.append(Item(row, item.place, item.text, item.end, item.cells))
    return found


def written(loaded: Scorer, items: Sequence[Item], workers: int, budget: int) -> list[bytes]:
    """What is written for rows by a scorer that remembers nothing."""
    fresh = Scorer(loaded.bundle, Engine(loaded.engine.graph, workers, budget), loaded.encoder)
    try:
        scores = list(fresh.score(item.row for item in items))
    finally:
        fresh.engine.close()
    return [as_table_row(item, score).encode() for item, score in zip(items, scores, strict=True)]
