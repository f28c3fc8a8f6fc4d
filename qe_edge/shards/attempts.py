"""How often a run has begun a shard: a note beside its output, which outlives the workers that die over it.

The note of OUT is `.OUT.tried`: the run, and how many workers of it have begun. It is there while a worker scores.
"""

from __future__ import annotations

from contextlib import suppress

from qe_edge.shards.folder import Shard
from qe_edge.table.output import beside


class Attempts:
    """Those of one run over one shard. run: a name that no other run has."""

    def __init__(self, shard: Shard, run: str) -> None:
        self._note = beside(shard.target, "tried")
        self._run = run

    def begin(self) -> int:
        """Note one more, and return how many there are with it. Raises OSError."""
        count = self._before() + 1
        self._note.parent.mkdir(parents=True, exist_ok=True)
        self._note.write_text(f"{self._run} {count}", encoding="ascii")
        return count

    def forget(self) -> None:
        """The shard has come to an end."""
        with suppress(OSError):  # a note that stays counts for this run only
            self._note.unlink(missing_ok=True)

    def _before(self) -> int:
        try:
            run, count = self._note.read_text(encoding="ascii").split()
            return int(count) if run == self._run else 0
        except (FileNotFoundError, ValueError):  # none, or one that was being written when the machine stopped
            return 0
