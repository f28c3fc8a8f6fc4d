"""A row may name its languages in any usual spelling; an unknown language makes it invalid and stops nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from qe_edge import Row, Score, Scorer, Status

SCORED = Score(7.0, Status.OK)
"""A prompt of 3 + 1 + 1 + 2 words, in a pair that the bundle was trained on."""


@pytest.fixture
def scorer(counting_bundle: Path) -> Scorer:
    return Scorer.load(counting_bundle, device="cpu", threads=1)


@pytest.mark.parametrize("source", ["et", "est", "ekk", "Estonian", " ET ", "et-EE"])
@pytest.mark.parametrize("target", ["en", "eng", "English"])
def test_every_spelling_of_a_trained_pair_counts_as_trained(scorer: Scorer, source: str, target: str) -> None:
    assert list(scorer.score([Row.translation("Tere", "Hello", source, target)])) == [SCORED]


@pytest.mark.parametrize("unknown", ["xx", "", "und", "Elbonian", "en-", "\udc80"])
def test_an_unknown_language_makes_its_row_invalid_and_no_other(scorer: Scorer, unknown: str) -> None:
    rows = [
        Row.translation("Tere", "Hello", unknown, "en"),
        Row.translation("Tere", "Hello", "et", "en"),
        Row.translation("Tere", "Hello", "et", unknown),
        Row.translation("", "Hello", "et", unknown),
    ]
    first, *others = scorer.score(rows)
    assert (first.value, first.status) == (None, Status.INVALID)
    assert first.reason is not None
    assert repr(unknown) in first.reason
    assert "use an ISO 639 code" in first.reason
    assert others == [SCORED, first, first]


def test_a_known_language_outside_the_training_data_is_scored_with_caution(scorer: Scorer) -> None:
    assert list(scorer.score([Row.translation("Tere", "Hello", "Finnish", "en")])) == [
        Score(7.0, Status.UNSUPPORTED_LANGUAGE)
    ]


def test_half_a_surrogate_pair_makes_its_row_invalid_and_no_other(scorer: Scorer) -> None:
    broken = [Row.translation("Tere\ud83d", "Hello", "et", "en"), Row.translation("Tere", "\udc80", "et", "en")]
    reason = "a text has half a surrogate pair, U+{}; write the whole character"
    assert list(scorer.score([broken[0], Row.translation("Tere", "Hello", "et", "en"), broken[1]])) == [
        Score(None, Status.INVALID, reason.format("D83D")),
        SCORED,
        Score(None, Status.INVALID, reason.format("DC80")),
    ]


def test_an_unknown_language_is_looked_up_once(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def nearest(text: str) -> str:
        asked.append(text)
        return ""

    monkeypatch.setattr("qe_edge.languages._nearest", nearest)
    scores = list(scorer.score(Row.translation(f"Tere {i}", "Hello", "Syldavian", "en") for i in range(50)))
    assert {score.status for score in scores} == {Status.INVALID}
    assert asked == ["Syldavian"]
