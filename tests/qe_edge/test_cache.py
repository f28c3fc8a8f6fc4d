"""A score cache gives back the very scores, to the same bundle and device only, and to several processes at a time."""

from __future__ import annotations

import multiprocessing
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from qe_edge import Row, Score, Scorer, Status
from qe_edge import cache as cache_module
from qe_edge.cache import Known, ScoreCache, cache_info, clear_cache
from qe_edge.errors import OutputError
from qe_edge.scoring import scorer as scorer_module
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


def scored(bundle: Path, cache: Path, rows: Sequence[Row]) -> list[Score]:
    """Scores of rows by a scorer of its own with this cache."""
    with Scorer.load(bundle, device="cpu", cache=cache) as scorer:
        return list(scorer.score(rows))


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[[str], ScoreCache]]:
    """Opens the cache of a scorer, closed in the end."""
    with ExitStack() as stack:

        def cache(scorer: str = "one") -> ScoreCache:
            made = ScoreCache(tmp_path / "cache", scorer)
            stack.callback(made.close)
            return made

        yield cache


@pytest.mark.parametrize(("score", "shown"), [("'abc'", "'abc'"), ("9e999", "inf"), ("x'00'", r"b'\x00'")])
def test_what_is_no_score_is_not_taken_from_a_damaged_cache(
    counting_bundle: Path, tmp_path: Path, score: str, shown: str
) -> None:
    scored(counting_bundle, tmp_path / "cache", ROWS)
    with closing(sqlite3.connect(tmp_path / "cache")) as database, database:
        database.execute(f"update scores set score = {score}")

    with pytest.raises(OutputError) as caught:
        scored(counting_bundle, tmp_path / "cache", ROWS)
    assert str(caught.value) == (
        f"{tmp_path / 'cache'}: is damaged, the score of a row is {shown}; clear it with `qe-edge cache clear`, or "
        "give another"
    )


def test_a_second_run_takes_every_score_and_status_from_the_cache(
    counting_bundle: Path, tmp_path: Path, run: list[int]
) -> None:
    plain = list(Scorer.load(counting_bundle, device="cpu").score(ROWS))
    assert Status.TRUNCATED in {score.status for score in plain}
    run.clear()
    first = scored(counting_bundle, tmp_path / "cache", ROWS)
    assert sum(run) == 31  # all but the empty and the repeated one
    run.clear()
    second = scored(counting_bundle, tmp_path / "cache", ROWS)
    assert run == []
    assert first == second == plain


def test_the_file_is_asked_for_a_row_once_while_it_comes_again_soon(
    counting_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored(counting_bundle, tmp_path / "cache", ROWS[:10])
    asked: list[bytes] = []
    original = ScoreCache.known

    def known(self: ScoreCache, rows: Sequence[bytes]) -> dict[bytes, Known]:
        asked.extend(rows)
        return original(self, rows)

    monkeypatch.setattr(ScoreCache, "known", known)
    monkeypatch.setattr(scorer_module, "WINDOW", 10)
    scored(counting_bundle, tmp_path / "cache", ROWS[:10] * 5)

    assert len(asked) <= 20  # a second window is begun before the first one has ended
    assert len(set(asked)) == 10


def test_only_rows_that_are_new_are_run(counting_bundle: Path, tmp_path: Path, run: list[int]) -> None:
    scored(counting_bundle, tmp_path / "cache", ROWS[:10])
    run.clear()
    scored(counting_bundle, tmp_path / "cache", ROWS[5:15])
    assert sum(run) == 5


def test_another_bundle_has_scores_of_its_own(
    counting_bundle: Path, text_bundle: Path, tmp_path: Path, run: list[int]
) -> None:
    scored(counting_bundle, tmp_path / "cache", ROWS[:3])
    run.clear()
    scored(text_bundle, tmp_path / "cache", [Row(("a",)), Row(("b",))])
    assert sum(run) == 2
    assert sorted(cache_info(tmp_path / "cache").scores.values()) == [2, 3]


def test_a_score_is_kept_to_the_last_bit(opened: Callable[[str], ScoreCache]) -> None:
    scores = {b"a": (0.1 + 0.2, False), b"b": (-1e-300, True), b"c": (float(2**53 - 1), False)}
    cache = opened("one")
    cache.keep(scores.items())
    cache.keep([(b"a", (7.0, True))])  # the first answer stays
    assert opened("one").known([b"a", b"b", b"c", b"d"]) == scores
    assert opened("two").known([b"a"]) == {}


def test_more_rows_are_asked_for_than_fit_one_question(
    opened: Callable[[str], ScoreCache], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "ASKED_AT_ONCE", 7)
    rows = [bytes([n]) for n in range(40)]
    cache = opened("one")
    cache.keep((row, (float(row[0]), False)) for row in rows)
    assert cache.known(rows) == {row: (float(row[0]), False) for row in rows}


def test_clear_removes_all_and_says_how_many(opened: Callable[[str], ScoreCache], tmp_path: Path) -> None:
    opened("one").keep([(b"a", (1.0, False)), (b"b", (2.0, False))])
    assert clear_cache(tmp_path / "cache") == 2
    assert cache_info(tmp_path / "cache").scores == {}


def write(path: Path, start: int) -> None:
    cache = ScoreCache(path, "one")
    for n in range(start, start + 50):
        cache.keep([(n.to_bytes(4), (float(n), False))])
    cache.close()


def test_many_open_a_new_cache_at_the_same_moment(tmp_path: Path) -> None:
    for attempt in range(20):
        path = tmp_path / f"cache{attempt}"
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda n, path=path: write_one(path, n), range(4)))
        assert cache_info(path).scores == {"one": 4}


def write_one(path: Path, n: int) -> None:
    cache = ScoreCache(path, "one")
    cache.keep([(bytes([n]), (float(n), False))])
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


def test_several_threads_share_one_cache(opened: Callable[[str], ScoreCache]) -> None:
    cache = opened("one")

    def write(thread: int) -> None:
        for number in range(50):
            cache.keep((f"{thread} {number} {row}".encode(), (1.0, False)) for row in range(100))
            assert len(cache.known([f"{thread} {number} {row}".encode() for row in range(100)])) == 100

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))


def test_scores_that_could_not_be_written_do_not_stop_the_next_ones(opened: Callable[[str], ScoreCache]) -> None:
    cache = opened("one")
    with pytest.raises(OutputError, match="cannot be used as a score cache"):
        cache.keep([(b"good", (1.0, False)), (object(), (1.0, False))])  # type: ignore[list-item]
    cache.keep([(b"next", (2.0, False))])
    assert cache.known([b"good", b"next"]) == {b"next": (2.0, False)}


def test_what_is_no_cache_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("src\tmt\n" * 100)
    other = tmp_path / "other"
    with closing(sqlite3.connect(other)) as database:
        database.execute("create table songs (name text)")
    empty = tmp_path / "empty"
    empty.touch()
    before = [text.read_bytes(), other.read_bytes()]
    with pytest.raises(OutputError, match=r"text: cannot be used as a score cache \(file is not a database\); check"):
        ScoreCache(text, "one")
    with pytest.raises(OutputError, match="other: is no score cache; give another file"):
        ScoreCache(other, "one")
    with pytest.raises(OutputError, match="unable to open database file"):
        ScoreCache(tmp_path / "missing" / "cache", "one")
    for look in (cache_info, clear_cache):
        with pytest.raises(OutputError, match="no such score cache; score with --cache to make one"):
            look(tmp_path / "none")
        with pytest.raises(OutputError, match="empty: is no score cache"):
            look(empty)
    assert [text.read_bytes(), other.read_bytes(), empty.read_bytes()] == [*before, b""]
    assert not (tmp_path / "none").exists()


def test_a_cache_that_another_process_holds_is_waited_for_and_then_refused(
    opened: Callable[[str], ScoreCache], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "WAIT_SECONDS", 0.05)
    cache = opened("one")
    holder = sqlite3.connect(tmp_path / "cache", isolation_level=None)
    holder.execute("begin immediate")
    with pytest.raises(OutputError, match="database is locked"):
        cache.keep([(b"a", (1.0, False))])
    holder.execute("rollback")
    holder.close()
    cache.keep([(b"a", (1.0, False))])


@pytest.mark.parametrize("name", [":memory:", "file:x?mode=memory", "file::memory:?cache=shared"])
def test_every_name_is_that_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    write_one(Path(name), 1)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert cache_info(Path(name)).scores == {"one": 1}
    assert clear_cache(Path(name)) == 1


@pytest.mark.parametrize("look", [cache_info, clear_cache])
def test_a_name_that_the_system_refuses_is_told_in_one_line(tmp_path: Path, look: Callable[[Path], object]) -> None:
    with pytest.raises(OutputError, match=r"x: cannot be used as a score cache \(File name too long\); check the file"):
        look(tmp_path / ("x" * 300))
