"""A score cache gives back the very scores, to the same bundle and device only, and to several processes at a time."""

from __future__ import annotations

import multiprocessing
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest

from qe_edge import Row, Scorer, Status
from qe_edge.errors import OutputError
from qe_edge.scoring import cache as cache_module
from qe_edge.scoring.cache import ScoreCache, cache_info, clear_cache
from qe_edge.scoring.graph import Graph, Past

ROWS = [Row.translation(f"a {'b ' * (n % 4)}", f"c{n}", "et", "en") for n in range(30)]
ROWS += [Row.translation("", "x", "et", "en"), Row.translation("w " * 40, "y", "et", "en"), ROWS[0]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of every batch that is run."""
    rows: list[int] = []
    original = Graph.scores

    def counting(self: Graph, past: Past, bodies: Sequence[Sequence[int]]) -> list[float]:
        rows.append(len(bodies))
        return original(self, past, bodies)

    monkeypatch.setattr(Graph, "scores", counting)
    return rows


def test_a_second_run_takes_every_score_and_status_from_the_cache(
    counting_bundle: Path, tmp_path: Path, run: list[int]
) -> None:
    plain = list(Scorer.load(counting_bundle, device="cpu").score(ROWS))
    assert Status.TRUNCATED in {score.status for score in plain}
    run.clear()
    first = list(Scorer.load(counting_bundle, device="cpu", cache=tmp_path / "cache").score(ROWS))
    assert sum(run) == 31  # all but the empty and the repeated one
    run.clear()
    second = list(Scorer.load(counting_bundle, device="cpu", cache=tmp_path / "cache").score(ROWS))
    assert run == []
    assert first == second == plain


def test_only_rows_that_are_new_are_run(counting_bundle: Path, tmp_path: Path, run: list[int]) -> None:
    list(Scorer.load(counting_bundle, device="cpu", cache=tmp_path / "cache").score(ROWS[:10]))
    run.clear()
    list(Scorer.load(counting_bundle, device="cpu", cache=tmp_path / "cache").score(ROWS[5:15]))
    assert sum(run) == 5


def test_another_bundle_has_scores_of_its_own(
    counting_bundle: Path, text_bundle: Path, tmp_path: Path, run: list[int]
) -> None:
    list(Scorer.load(counting_bundle, device="cpu", cache=tmp_path / "cache").score(ROWS[:3]))
    run.clear()
    list(Scorer.load(text_bundle, device="cpu", cache=tmp_path / "cache").score([Row(("a",)), Row(("b",))]))
    assert sum(run) == 2
    assert sorted(cache_info(tmp_path / "cache").scores.values()) == [2, 3]


def test_a_score_is_kept_to_the_last_bit(tmp_path: Path) -> None:
    scores = {b"a": (0.1 + 0.2, False), b"b": (-1e-300, True), b"c": (float(2**53 - 1), False)}
    cache = ScoreCache(tmp_path / "cache", "one")
    cache.keep(scores.items())
    cache.keep([(b"a", (7.0, True))])  # the first answer stays
    cache.close()
    assert ScoreCache(tmp_path / "cache", "one").known([b"a", b"b", b"c", b"d"]) == scores
    assert ScoreCache(tmp_path / "cache", "two").known([b"a"]) == {}


def test_more_rows_are_asked_for_than_fit_one_question(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "ASKED_AT_ONCE", 7)
    cache = ScoreCache(tmp_path / "cache", "one")
    rows = [bytes([n]) for n in range(40)]
    cache.keep((row, (float(row[0]), False)) for row in rows)
    assert cache.known(rows) == {row: (float(row[0]), False) for row in rows}


def test_clear_removes_all_and_says_how_many(tmp_path: Path) -> None:
    ScoreCache(tmp_path / "cache", "one").keep([(b"a", (1.0, False)), (b"b", (2.0, False))])
    assert clear_cache(tmp_path / "cache") == 2
    assert cache_info(tmp_path / "cache").scores == {}


def write(path: Path, start: int) -> None:
    cache = ScoreCache(path, "one")
    for n in range(start, start + 50):
        cache.keep([(n.to_bytes(4), (float(n), False))])
    cache.close()


def test_several_processes_write_at_a_time(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=write, args=(tmp_path / "cache", 25 * k)) for k in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert cache_info(tmp_path / "cache").scores == {"one": 100}


def test_what_is_no_cache_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("src\tmt\n" * 100)
    other = tmp_path / "other"
    with sqlite3.connect(other) as database:
        database.execute("create table songs (name text)")
    before = [text.read_bytes(), other.read_bytes()]
    with pytest.raises(OutputError, match=r"text: cannot be used as a score cache \(file is not a database\); check"):
        ScoreCache(text, "one")
    with pytest.raises(OutputError, match="other: is a database, but no score cache; give another file"):
        ScoreCache(other, "one")
    with pytest.raises(OutputError, match="unable to open database file"):
        ScoreCache(tmp_path / "missing" / "cache", "one")
    for look in (cache_info, clear_cache):
        with pytest.raises(OutputError, match="no such score cache; score with --cache to make one"):
            look(tmp_path / "none")
    assert [text.read_bytes(), other.read_bytes()] == before
    assert not (tmp_path / "none").exists()


def test_a_cache_that_another_process_holds_is_waited_for_and_then_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "WAIT_SECONDS", 0.05)
    cache = ScoreCache(tmp_path / "cache", "one")
    holder = sqlite3.connect(tmp_path / "cache", isolation_level=None)
    holder.execute("begin immediate")
    with pytest.raises(OutputError, match="database is locked"):
        cache.keep([(b"a", (1.0, False))])
    holder.execute("rollback")
    holder.close()
    cache.keep([(b"a", (1.0, False))])
