"""The files that a run reads, and whether they stay what they were when it began."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from qe_edge.errors import InputError

Facts = dict[str, Any]
"""Of one file: `path`, `bytes`, and `modified_ns`, its time of modification."""


def file_facts(paths: Sequence[str]) -> list[Facts]:
    """Facts of files as they are now. Raises OSError for one that is not there."""
    found = [(str(Path(path).resolve()), Path(path).stat()) for path in paths]
    return [{"path": path, "bytes": stat.st_size, "modified_ns": stat.st_mtime_ns} for path, stat in found]


@contextmanager
def unchanged(begun: Sequence[Facts]) -> Iterator[None]:
    """Read the files in the block; refuse them at its end if one is no longer what it was.

    What was read of it may then be a part, or a mixture. begun: facts from before anything was read. Raises InputError.
    """
    try:
        yield
    except ValueError:  # two files were counted, and then one of them had another number of lines
        _refuse_changes(begun)
        raise
    _refuse_changes(begun)


def _refuse_changes(begun: Sequence[Facts]) -> None:
    for before in begun:
        path = before["path"]
        try:
            (now,) = file_facts([path])
        except OSError as error:
            change = f"it is gone ({error.strerror})"
        else:
            if now == before:
                continue
            change = f"{before['bytes']} bytes then, {now['bytes']} now"
            if now["bytes"] == before["bytes"]:
                change = "it was written again"
        raise InputError(
            f"{path}: changed while it was read: {change}; score it anew once nothing writes it (with -o: --restart)"
        )
