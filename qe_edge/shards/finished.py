"""Which shards are finished: a note beside each output says which run made it.

The note of OUT is `.OUT.done`, JSON: what had to be the same for the run to be continued, how many rows there were of
each status, and the size of the output. A note without its output says nothing.
"""

from __future__ import annotations

import json
import os
import stat
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from qe_edge.errors import InputError
from qe_edge.rows import Status
from qe_edge.shards.folder import Shard
from qe_edge.table.inputs import file_facts
from qe_edge.table.journal import Identity, Journal
from qe_edge.table.output import alone, beside


def identity(shard: Shard, scorer: str, options: Mapping[str, Any]) -> Identity:
    """What must be the same for a shard's output to be kept. Raises InputError when the shard cannot be looked at."""
    if shard.fault is not None:
        raise InputError(f"{shard.source}: cannot be looked into ({shard.fault}); check its permissions")
    try:
        if not stat.S_ISREG(shard.source.stat().st_mode):
            raise InputError(f"{shard.source}: is no file that can be read again; put one in its place, or remove it")
        return Identity(file_facts([str(shard.source)]), scorer, dict(options))
    except OSError as error:
        raise InputError(f"{shard.source}: cannot be read ({error.strerror}); check it") from None


def finished_tally(shard: Shard, now: Identity) -> Counter[Status] | None:
    """Rows per status of a shard that is finished, or None. Raises InputError when another run has finished it."""
    note = beside(shard.target, "done")
    if not (note.is_file() and shard.target.is_file()):
        return None
    try:
        content = json.loads(note.read_text(encoding="ascii"))
        if content["output_bytes"] != shard.target.stat().st_size:
            return None  # somebody has put another file there
        difference = now.difference(content["identity"])
        tally = Counter({Status(status): int(rows) for status, rows in content["tally"].items()})
    except (ValueError, TypeError, KeyError, AttributeError):
        raise InputError(f"{note}: cannot be read; remove it, and the shard is scored anew") from None
    if difference is not None:
        raise InputError(
            f"{shard.target}: another run has finished it: {difference}; use --restart to score all shards anew, "
            "remove this file to score it anew alone, or give another -o"
        )
    return tally


def note_finished(shard: Shard, identity: Identity, tally: Mapping[Status, int]) -> None:
    """Note that the output is there and whole. Raises OSError."""
    content = {
        "identity": asdict(identity),
        "tally": {str(status): rows for status, rows in tally.items()},
        "output_bytes": shard.target.stat().st_size,
    }
    note, new = beside(shard.target, "done"), beside(shard.target, "done.new")
    with new.open("w", encoding="ascii") as stream:
        stream.write(json.dumps(content))
        stream.flush()
        os.fsync(stream.fileno())
    new.replace(note)
    beside(shard.target, "tried").unlink(missing_ok=True)  # of a run with Ray that came to no end


def check_all(shards: Sequence[Shard], scorer: str, options: Mapping[str, Any]) -> None:
    """Refuse to begin where one of the shards, finished or not, is another run's: no folder holds two runs' scores.

    A shard that cannot be looked at is passed over: scoring it says so. Raises InputError, with what to do, and OSError
    where the outputs cannot be looked at.
    """
    for shard in shards:
        try:
            now = identity(shard, scorer, options)
        except InputError:
            continue
        finished_tally(shard, now)
        Journal(_journal(shard), now, str(shard.target))


def forget_all(shards: Sequence[Shard]) -> None:
    """Let all shards be scored anew; outputs that are there stay until they are replaced.

    Raises OutputError when another run is writing one of them, before anything is forgotten, and OSError.
    """
    begun = [shard for shard in shards if any(left.exists() for left in (beside(shard.target, "lock"), *_left(shard)))]
    for shard in begun:
        with alone(str(shard.target), shard.target):
            pass
    for shard in begun:
        with alone(str(shard.target), shard.target):
            for left in _left(shard):
                left.unlink(missing_ok=True)


def _left(shard: Shard) -> list[Path]:
    """What runs leave beside an output."""
    return [*(beside(shard.target, kind) for kind in ("done", "part", "tried")), _journal(shard)]


def _journal(shard: Shard) -> Path:
    return beside(shard.target, "journal")
