"""Scores kept in a file from one run to the next, for rows that come again.

An SQLite database with one table: who scored (bundle hash and device), a digest of everything that a row's score
depends on, the score, and whether the texts had to be shortened. Several processes may use one file at a time.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from qe_edge.errors import OutputError

TABLE = """
create table if not exists scores (
    scorer text not null, row blob not null, score real not null, truncated integer not null,
    primary key (scorer, row)
) without rowid
"""
APPLICATION = 0x71656463
"""marks a database as a score cache (SQLite's application_id)"""
WAIT_SECONDS = 60.0
"""how long another process may hold the file"""
ASKED_AT_ONCE = 500
"""rows in one question to the database; older SQLite takes 999 values"""

Known = tuple[float, bool]
"""A score, and whether the texts had to be shortened."""


@dataclass(frozen=True)
class CacheInfo:
    """What a cache holds."""

    scores: dict[str, int]
    """number of scores by scorer"""
    size: int
    """bytes on disk"""


class ScoreCache:
    """The scores of one scorer in a cache file, which is made if it is not there.

    scorer: what tells its scores from others': bundle hash and device. Raises OutputError for a file that cannot be
    opened, is no score cache, or is held by another process for longer than `WAIT_SECONDS`; so do all methods.
    """

    def __init__(self, path: Path, scorer: str) -> None:
        self._path = path
        self._scorer = scorer
        self._database = _connected(path)

    def known(self, rows: Sequence[bytes]) -> dict[bytes, Known]:
        """The scores of those rows, given by their digests, that are in the cache."""
        found: dict[bytes, Known] = {}
        with _reported(self._path):
            for start in range(0, len(rows), ASKED_AT_ONCE):
                some = rows[start : start + ASKED_AT_ONCE]
                marks = ", ".join("?" * len(some))
                question = f"select row, score, truncated from scores where scorer = ? and row in ({marks})"
                for row, score, truncated in self._database.execute(question, (self._scorer, *some)):
                    found[row] = (score, bool(truncated))
        return found

    def keep(self, scores: Iterable[tuple[bytes, Known]]) -> None:
        """Add scores by the digests of their rows; all of them are on the disk when this returns."""
        entries = [(self._scorer, row, score, truncated) for row, (score, truncated) in scores]
        with _reported(self._path), self._database:
            self._database.executemany("insert or ignore into scores values (?, ?, ?, ?)", entries)

    def close(self) -> None:
        self._database.close()


def cache_info(path: Path) -> CacheInfo:
    """What a cache file holds. Raises OutputError as `ScoreCache`, and when there is none."""
    database = _existing(path)
    with _reported(path):
        counts = dict(database.execute("select scorer, count(*) from scores group by scorer order by scorer"))
    database.close()
    return CacheInfo(counts, path.stat().st_size)


def clear_cache(path: Path) -> int:
    """Remove all scores; how many there were. Raises OutputError as `cache_info`."""
    database = _existing(path)
    with _reported(path):
        with database:
            removed = database.execute("delete from scores").rowcount
        database.execute("vacuum")
    database.close()
    return removed


def _existing(path: Path) -> sqlite3.Connection:
    if not path.is_file():
        raise OutputError(f"{path}: no such score cache; score with --cache to make one")
    return _connected(path)


def _connected(path: Path) -> sqlite3.Connection:
    """An open cache. A database of something else is refused and left as it is."""
    with _reported(path):
        database = sqlite3.connect(path, timeout=WAIT_SECONDS, check_same_thread=False)
        (application,) = database.execute("pragma application_id").fetchone()
        (tables,) = database.execute("select count(*) from sqlite_master").fetchone()
        if application != APPLICATION and tables:
            database.close()
            raise OutputError(f"{path}: is a database, but no score cache; give another file")
        with database:
            database.execute(TABLE)
            database.execute(f"pragma application_id = {APPLICATION}")
        database.execute("pragma journal_mode = wal")
        database.execute("pragma synchronous = normal")
    return database


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise OutputError(
            f"{path}: cannot be used as a score cache ({error}); check the file, or give another"
        ) from None
