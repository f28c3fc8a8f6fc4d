"""Scores kept in a file from one run to the next, for rows that come again.

An SQLite database with one table: who scored (version, bundle hash, device), a digest of everything that a row's score
depends on, the score, and whether the texts had to be shortened. Several processes may use one file at a time.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

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

    scorer: what tells its scores from others': version, bundle hash and device. Raises OutputError for a file that
    cannot be opened, is no score cache, or is held by another process for longer than `WAIT_SECONDS`; so do all
    methods.
    """

    def __init__(self, path: Path, scorer: str) -> None:
        self._path = path
        self._scorer = scorer
        self._one_thread = Lock()  # a connection has one transaction, whichever thread has begun it
        with _reported(path):
            self._database = _connected(path)
            try:
                # one transaction: a second process sees all of a new cache or nothing of it
                self._database.execute("begin immediate")
                tables = self._database.execute("select count(*) from sqlite_master").fetchone()[0]
                if tables:
                    _check(self._database, path)
                else:
                    self._database.execute(TABLE)
                    self._database.execute(f"pragma application_id = {APPLICATION}")
                self._database.execute("commit")
            except BaseException:
                self._database.close()
                raise

    def known(self, rows: Sequence[bytes]) -> dict[bytes, Known]:
        """The scores of those rows, given by their digests, that are in the cache."""
        found: dict[bytes, Known] = {}
        with self._one_thread, _reported(self._path):
            for start in range(0, len(rows), ASKED_AT_ONCE):
                some = rows[start : start + ASKED_AT_ONCE]
                marks = ", ".join("?" * len(some))
                question = f"select row, score, truncated from scores where scorer = ? and row in ({marks})"
                for row, score, truncated in self._database.execute(question, (self._scorer, *some)):
                    if not isinstance(score, float) or not math.isfinite(score):
                        raise OutputError(
                            f"{self._path}: is damaged, the score of a row is {score!r}; clear it with "
                            "`qe-edge cache clear`, or give another"
                        )
                    found[row] = (score, bool(truncated))
        return found

    def keep(self, scores: Iterable[tuple[bytes, Known]]) -> None:
        """Add scores by the digests of their rows; all of them are on the disk when this returns."""
        entries = [(self._scorer, row, score, truncated) for row, (score, truncated) in scores]
        with self._one_thread, _reported(self._path), self._database:  # which commits, or takes back what failed
            self._database.execute("begin immediate")
            self._database.executemany("insert or ignore into scores values (?, ?, ?, ?)", entries)

    def close(self) -> None:
        """Wait for another thread's question, if there is one; whatever is asked afterwards raises OutputError."""
        with self._one_thread:
            self._database.close()


def cache_info(path: Path) -> CacheInfo:
    """What a cache file holds. Raises OutputError as `ScoreCache`, and when there is none."""
    with _existing(path) as database:
        counts = dict(database.execute("select scorer, count(*) from scores group by scorer order by scorer"))
        return CacheInfo(counts, path.stat().st_size)


def clear_cache(path: Path) -> int:
    """Remove all scores; how many there were. Raises OutputError as `cache_info`."""
    with _existing(path) as database:
        removed = database.execute("delete from scores").rowcount
        database.execute("vacuum")
    return removed


@contextmanager
def _existing(path: Path) -> Iterator[sqlite3.Connection]:
    with _reported(path):
        if not path.is_file():
            raise OutputError(f"{path}: no such score cache; score with --cache to make one")
        with closing(_connected(path)) as database:
            _check(database, path)
            yield database


def _connected(path: Path) -> sqlite3.Connection:
    """The database in a file. To SQLite the name `:memory:` alone is no file; as an absolute path every name is one."""
    return sqlite3.connect(path.absolute(), timeout=WAIT_SECONDS, isolation_level=None, check_same_thread=False)


def _check(database: sqlite3.Connection, path: Path) -> None:
    """Refuse a database of something else."""
    if database.execute("pragma application_id").fetchone()[0] != APPLICATION:
        raise OutputError(f"{path}: is no score cache; give another file")


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise OutputError(
            f"{path}: cannot be used as a score cache ({reason}); check the file, or give another"
        ) from None
