"""The scorer with the embedded bundle: statuses, order, repeats, and scores that no neighbour can move."""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import qe_edge
from qe_edge import Row, Score, Scorer, Status
from qe_edge.bundle import EMBEDDED_BUNDLE, MODEL_FILE
from qe_edge.errors import BundleError, UsageError
from qe_edge.scoring import recent
from qe_edge.scoring import scorer as scorer_module
from qe_edge.scoring.graph import Graph, Past
from qe_edge.scoring.kernels.rewrite import runs_on
from qe_edge.scoring.scorer import Job

MOST_MOVEMENT = 0.01
"""points of 100 by which a score may move with its batch"""


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return Scorer.load(device="cpu")


@pytest.fixture(scope="module")
def rows(sample: Path) -> list[Row]:
    lines = sample.read_text(encoding="utf-8").splitlines()
    columns = lines[0].split("\t")
    at = {name: columns.index(name) for name in ("lp", "original", "translation")}
    cells = [line.split("\t") for line in lines[1:]]
    return [Row.translation(c[at["original"]], c[at["translation"]], *c[at["lp"]].split("-")) for c in cells]


def values(scores: Iterator[Score]) -> list[float]:
    found = [score.value for score in scores]
    assert all(value is not None for value in found)
    return [value for value in found if value is not None]


def test_scores_lie_on_the_scale_and_tell_rows_apart(scorer: Scorer, rows: list[Row]) -> None:
    scores = values(scorer.score(rows))

    assert len(scores) == len(rows)
    assert all(-20 < score < 120 for score in scores)
    assert max(scores) - min(scores) > 20


def test_a_score_moves_with_neither_batch_nor_order(rows: list[Row]) -> None:
    rows = rows[:12]  # of three language pairs

    def fresh(budget: int) -> Scorer:
        """A scorer that remembers nothing."""
        loaded = Scorer.load(device="cpu")
        loaded.engine.token_budget = budget
        return loaded

    together = values(fresh(768).score(rows))
    alone = values(fresh(1).score(rows))
    wide = values(fresh(4096).score(rows))
    order = list(range(len(rows)))
    random.Random(5).shuffle(order)
    shuffled = dict(zip(order, values(fresh(768).score(rows[i] for i in order)), strict=True))

    for i, score in enumerate(together):
        assert abs(score - alone[i]) <= MOST_MOVEMENT
        assert abs(score - wide[i]) <= MOST_MOVEMENT
        assert abs(score - shuffled[i]) <= MOST_MOVEMENT


def test_translations_of_one_source_share_it_and_score_as_they_do_apart(
    rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = " ".join(row.texts[1] for row in rows).split()
    random.Random(3).shuffle(words)
    listed = [
        Row.translation(row.texts[0], " ".join(words[start : start + 4 + start % 9]), "et", "en")
        for row in rows[:3]
        for start in range(0, 60, 5)
    ]
    beginnings: list[int] = []
    original = Graph.extend

    def counting(self: Graph, past: Past, found: Sequence[Sequence[int]]) -> list[Past]:
        beginnings.extend(len(beginning) for beginning in found if beginning)
        return original(self, past, found)

    monkeypatch.setattr(Graph, "extend", counting)
    shared = values(Scorer.load(device="cpu").score(listed))
    assert len(beginnings) == 1 + 3  # the prefix, and each source once

    monkeypatch.setattr("qe_edge.scoring.batching.LEAST_SAVED", 10**9)
    apart = values(Scorer.load(device="cpu").score(listed))
    assert len(beginnings) == 1 + 3 + 1
    assert max(abs(a - b) for a, b in zip(shared, apart, strict=True)) <= MOST_MOVEMENT
    assert max(shared) - min(shared) > 5


def test_a_failing_batch_stops_the_stream_and_is_not_remembered(
    rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = Scorer.load(device="cpu")
    whole = Graph.scores

    def failing(self: Graph, past: Past, bodies: Sequence[Sequence[int]]) -> list[float]:
        raise BundleError("the graph failed")

    monkeypatch.setattr(Graph, "scores", failing)
    with pytest.raises(BundleError, match="the graph failed"):
        list(loaded.score(rows[:5]))
    monkeypatch.setattr(Graph, "scores", whole)

    assert values(loaded.score(rows[:5])) == values(Scorer.load(device="cpu").score(rows[:5]))


def test_a_stream_that_is_left_early_can_be_scored_again(rows: list[Row], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scorer_module, "WINDOW", 2)
    loaded = Scorer.load(device="cpu")
    stream = loaded.score(rows[:6])
    first = next(stream)
    stream.close()  # type: ignore[attr-defined]

    assert next(loaded.score(rows[:6])) == first
    assert len(values(loaded.score(rows[:6]))) == 6


def test_two_streams_of_one_scorer_do_not_disturb_each_other(rows: list[Row], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scorer_module, "WINDOW", 4)
    expected = values(Scorer.load(device="cpu").score(rows[:12]))
    with Scorer.load(device="cpu", threads=1) as loaded:
        first, second = loaded.score(rows[:12]), loaded.score(rows[:12])
        begun = [next(first), next(second)]
        first.close()  # type: ignore[attr-defined]
        assert [score.value for score in (begun[1], *second)] == expected


def test_several_threads_score_with_one_scorer(
    counting_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recent, "GROUPS", 2)
    monkeypatch.setattr(recent, "PLACES", 1)  # so that threads forget what others are about to read
    monkeypatch.setattr(scorer_module, "WINDOW", 4)
    monkeypatch.setattr(scorer_module, "PREFIXES", 1)
    rows = [Row.translation("a " * (n % 5 + 1), f"b{n % 7}", "et", "en" if n % 2 else "de") for n in range(300)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with (
            Scorer.load(counting_bundle, device="cpu", threads=1, cache=tmp_path / "cache") as loaded,
            ThreadPoolExecutor(8) as threads,
        ):
            found = list(threads.map(lambda _: values(loaded.score(rows)), range(8)))
    finally:
        sys.setswitchinterval(interval)
    assert found == [values(Scorer.load(counting_bundle, device="cpu").score(rows))] * 8


def test_a_closed_scorer_lets_its_workers_go(rows: list[Row], monkeypatch: pytest.MonkeyPatch) -> None:
    run = counted_rows(monkeypatch)
    with Scorer.load(device="cpu", threads=1) as loaded:
        loaded.engine.token_budget = 1
        stream = loaded.score(rows)
        threading.Timer(0.05, loaded.close).start()
        with pytest.raises(UsageError, match="this scorer is closed"):
            list(stream)
    assert sum(run) < len(rows)


def test_the_prefixes_of_few_language_pairs_are_kept(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scorer_module, "PREFIXES", 2)
    languages = ["et", "ro", "ru", "et"]
    scores = values(Scorer.load(device="cpu").score(Row.translation("Anna", "Hannah", s, "en") for s in languages))

    assert scores[0] == scores[3]
    assert len(set(scores)) == 3


def test_rows_come_back_in_order_with_their_statuses(scorer: Scorer, rows: list[Row]) -> None:
    mixed = [
        rows[0],
        Row.translation("", "text", "et", "en"),
        Row.translation("text", "  ", "et", "en"),
        Row((), fault="file.tsv:5: 3 cells"),
        Row.translation("Tere maailm", "Tere maailm", "et", "en"),
        Row.translation("Hei maailma", "Hello world", "fi", "en"),
        Row.translation("sõna " * 400, "word " * 400, "et", "en"),
    ]

    scores = list(scorer.score(mixed))

    assert [score.status for score in scores] == [
        Status.OK,
        Status.EMPTY_SOURCE,
        Status.EMPTY_TRANSLATION,
        Status.INVALID,
        Status.COPIED_SOURCE,
        Status.UNSUPPORTED_LANGUAGE,
        Status.TRUNCATED,
    ]
    assert [score.value is None for score in scores] == [False, True, True, True, False, False, False]


def counted_rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of every batch that is run from now on."""
    run: list[int] = []
    original = Graph.scores

    def counting(self: Graph, past: Past, bodies: Sequence[Sequence[int]]) -> list[float]:
        run.append(len(bodies))
        return original(self, past, bodies)

    monkeypatch.setattr(Graph, "scores", counting)
    return run


def test_identical_rows_are_run_once(rows: list[Row], monkeypatch: pytest.MonkeyPatch) -> None:
    run = counted_rows(monkeypatch)
    monkeypatch.setattr(scorer_module, "WINDOW", 3)  # a repetition in its own window, in the next, and later
    loaded = Scorer.load(device="cpu")

    scores = values(loaded.score([rows[0], rows[1], rows[0], rows[0], rows[2], rows[1], rows[0]]))

    assert sum(run) == 3
    assert scores[0] == scores[2] == scores[3] == scores[6]
    assert scores[1] == scores[5]


def test_the_same_texts_in_another_language_pair_are_another_row(scorer: Scorer) -> None:
    a, b = values(
        scorer.score([Row.translation("Anna", "Hannah", "et", "en"), Row.translation("Anna", "Hannah", "ro", "en")])
    )

    assert a != b


@pytest.mark.parametrize(("bound", "value"), [("WINDOW", 2), ("HELD_CHARACTERS", 1)])
def test_the_stream_is_read_two_windows_ahead_at_most(
    scorer: Scorer, rows: list[Row], monkeypatch: pytest.MonkeyPatch, bound: str, value: int
) -> None:
    monkeypatch.setattr(scorer_module, bound, value)
    read = 0

    def source() -> Iterator[Row]:
        nonlocal read
        for row in rows[:6]:
            read += 1
            yield row

    scores = scorer.score(source())
    next(scores)

    assert read == 2 * value
    assert len(list(scores)) == 5


@pytest.mark.parametrize(
    "row",
    [
        Row.translation("four", "four", "et", "en"),
        Row((), fault="of eight"),
        Row((), beside=8, fault=""),
        Row(("a", "b"), "et", "en", beside=6),
    ],
)
def test_all_that_is_kept_for_a_row_counts_for_how_many_are_read_ahead(
    scorer: Scorer, row: Row, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scorer_module, "HELD_CHARACTERS", 16)
    stream = iter([row] * 6)
    scores = scorer.score(stream)
    next(scores)

    assert len(list(stream)) == 2


def test_after_an_interruption_the_same_rows_are_planned_together(
    counting_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scorer_module, "WINDOW", 4)
    monkeypatch.setattr(scorer_module, "HELD_CHARACTERS", 60)
    planned: list[list[Row]] = []
    original = Scorer.jobs

    def noting(self: Scorer, rows: Sequence[Row]) -> Iterator[Job]:
        planned.append(list(rows))
        return original(self, rows)

    monkeypatch.setattr(Scorer, "jobs", noting)
    rows = [Row.translation(f"source {n}", f"translation {n}", "et", "en") for n in range(100, 112)]

    list(Scorer.load(counting_bundle, device="cpu").score(rows))
    whole = planned.copy()
    planned.clear()
    list(Scorer.load(counting_bundle, device="cpu").score(rows[4:]))

    assert [len(window) for window in whole] == [3, 1, 3, 1, 3, 1]
    assert planned == whole[2:]


def test_special_token_strings_are_text(scorer: Scorer) -> None:
    plain, special = values(
        scorer.score(
            [Row.translation("Tere", "Hello", "et", "en"), Row.translation("Tere", "Hello<|im_end|>", "et", "en")]
        )
    )
    encoded = scorer.encoder.bodies([(("Estonian", "English"), ("<|im_end|>", "<|endoftext|>"))])[0].ids

    assert plain != special
    assert not {0, 1, 2} & set(encoded)


def test_no_rows_give_no_scores(scorer: Scorer) -> None:
    assert list(scorer.score([])) == []


def test_the_signature_names_version_bundle_tap_precision_and_device(scorer: Scorer) -> None:
    spec = scorer.bundle.spec

    named = f"qe-edge {qe_edge.__version__} | bundle {spec.name}@{scorer.bundle.digest}"
    device = runs_on(EMBEDDED_BUNDLE / MODEL_FILE, head_dim=64)
    assert device.startswith("cpu")
    assert scorer.signature == f"{named} | TL-{spec.taps[0]} | w8a8 | {device}"
