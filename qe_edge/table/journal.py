"""What an interrupted run leaves beside its output, so that the same command continues it.

Beside OUT lie, until it is complete:

    .OUT.part      the output so far
    .OUT.journal   JSON: what the run is, and how far it has come

The journal is replaced whole, and only once the rows that it speaks of are on the disk. After a crash the partial
output may be longer than the journal says; what is longer is cut off. A run is continued only when inputs, scorer and
options are the same; the rows that are read again are compared by their hash.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from qe_edge.errors import InputError
from qe_edge.rows import Status
from qe_edge.table.inputs import Facts
from qe_edge.table.items import Item

FORMAT = 1
SHOWN = 160
"""characters of a value in a message"""


@dataclass(frozen=True)
class Identity:
    """What must be the same for a run to be continued."""

    inputs: list[Facts]
    """of every file read"""
    scorer: str
    """signature: version, bundle, precision, device"""
    options: dict[str, Any]
    """of the command line, as far as they change the output"""
    format: int = FORMAT

    def difference(self, earlier: Mapping[str, Any]) -> str | None:
        """What was otherwise in an earlier run's identity, in words, or None."""
        for name, now in asdict(self).items():
            before = earlier.get(name)
            if before != now:
                return f"{name} {_shortened(before)} then, {_shortened(now)} now"
        return None


@dataclass(frozen=True)
class Progress:
    """How far a run has come: rows whose output is on the disk."""

    rows: int = 0
    output_bytes: int = 0
    read: str = ""
    """SHA-256 of the rows, see `RowHash`"""
    tally: Counter[Status] = field(default_factory=Counter)
    """rows per status"""


class RowHash:
    """SHA-256 of rows as they were read."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, item: Item) -> None:
        row = item.row
        self._hash.update(ascii((row.texts, row.pair, row.fault, item.text, item.end)).encode("ascii"))

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()


class Journal:
    """The journal of one output. `progress` is how far an earlier run of the same identity came, or this one has.

    output: what messages call the output. Raises InputError, with what to do, for the journal of another run and for
    one that cannot be read.
    """

    def __init__(self, path: Path, identity: Identity, output: str) -> None:
        self._path = path
        self._identity = identity
        self.progress = Progress()
        if not path.exists():
            return
        try:
            content = json.loads(path.read_text(encoding="ascii"))
            difference = identity.difference(content["identity"])
            if difference is None:
                self.progress = _progress(content["progress"])
        except (ValueError, TypeError, KeyError, AttributeError):
            raise InputError(f"{output}: the journal of an interrupted run cannot be read; use --restart") from None
        if difference is not None:
            raise InputError(
                f"{output}: an interrupted run lies there that is another one: {difference}; use --restart to begin "
                "anew, or give another -o"
            )

    def record(self, progress: Progress) -> None:
        """Note that the output is on the disk up to here. Raises OSError."""
        noted = asdict(progress) | {"tally": {str(status): rows for status, rows in progress.tally.items()}}
        content = json.dumps({"identity": asdict(self._identity), "progress": noted})
        new = _new(self._path)
        with new.open("w", encoding="ascii") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        new.replace(self._path)
        self.progress = progress

    @property
    def kept(self) -> int:
        """How many rows the next run of this identity would go on after: none once the journal is gone."""
        return self.progress.rows if self._path.exists() else 0

    def forget(self) -> None:
        """Begin anew. Raises OSError."""
        forget(self._path)
        self.progress = Progress()


def forget(journal: Path) -> None:
    """Remove a journal, and what a crash left of its next version. Raises OSError."""
    for path in (journal, _new(journal)):
        path.unlink(missing_ok=True)


def _new(journal: Path) -> Path:
    return journal.with_name(f"{journal.name}.new")


def _progress(noted: Mapping[str, Any]) -> Progress:
    rows, size, read = noted["rows"], noted["output_bytes"], noted["read"]
    tally = Counter({Status(status): count for status, count in noted["tally"].items()})
    if not (type(rows) is type(size) is int and min(rows, size) >= 0 and isinstance(read, str)):
        raise ValueError("no progress")
    return Progress(rows, size, read, tally)


def _shortened(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
