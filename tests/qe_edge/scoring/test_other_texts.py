"""Rows that are no translations: as many texts as the prompt has, and languages only where it names them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from qe_edge import Row, Score, Scorer, Status
from qe_edge.errors import UsageError
from qe_edge.scoring.graph import Graph, Past


@pytest.fixture
def scorer(text_bundle: Path) -> Scorer:
    return Scorer.load(text_bundle, device="cpu", threads=1)


def test_one_text_is_scored_without_a_language_and_without_a_prefix(scorer: Scorer) -> None:
    rows = [Row(("so it goes",)), Row(("so",)), Row(("  ",)), Row((), fault="broken"), Row(("so " * 30,))]
    assert list(scorer.score(rows)) == [
        Score(4.0, Status.OK),
        Score(2.0, Status.OK),
        Score(None, Status.EMPTY_TEXT),
        Score(None, Status.INVALID, "broken"),
        Score(16.0, Status.TRUNCATED),
    ]


def test_languages_play_no_part_where_the_prompt_names_none(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    run: list[int] = []
    original = Graph.scores

    def counting(self: Graph, past: Past, bodies: Sequence[Sequence[int]]) -> list[float]:
        run.append(len(bodies))
        return original(self, past, bodies)

    monkeypatch.setattr(Graph, "scores", counting)
    rows = [Row(("so it goes",)), Row(("so it goes",), "et", "en"), Row(("so it goes",), "xx", "no language")]
    assert list(scorer.score(rows)) == [Score(4.0, Status.OK)] * 3
    assert run == [1]


@pytest.mark.parametrize("texts", [(), ("a", "b")])
def test_another_number_of_texts_is_refused(scorer: Scorer, texts: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match=f"a row with {len(texts)} texts where the prompt reads 1: text"):
        list(scorer.score([Row(texts)]))


def test_several_texts_are_one_row_and_may_be_equal(text_bundle: Path) -> None:
    path = text_bundle / "bundle.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"prompt": "if {premise} then {claim} and {more}"}))
    scorer = Scorer.load(text_bundle, device="cpu", threads=1)

    scores = scorer.score([Row(("a", "a", "a")), Row(("a b", "c d", "e")), Row(("a", " ", "b"))])

    assert list(scores) == [Score(6.0, Status.OK), Score(8.0, Status.OK), Score(None, Status.EMPTY_TEXT)]
