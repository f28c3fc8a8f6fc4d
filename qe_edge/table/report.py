"""What is said on standard error while rows are scored: faults, progress, a summary. Never on standard output."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from typing import TextIO

from qe_edge.errors import one_line
from qe_edge.rows import Status

FAULTS_SHOWN = 20
"""rows with a fault that are named one by one; the others are counted"""
PROGRESS_SECONDS = 0.5
"""time between two progress lines"""
_CLEAR = "\r\x1b[K"


class Report:
    """Messages of one run. `quiet` leaves out progress and summary, not faults and assumptions."""

    def __init__(self, stream: TextIO, *, quiet: bool = False) -> None:
        self._stream = stream
        self._quiet = quiet
        self._shows_progress = stream.isatty() and os.environ.get("TERM") != "dumb" and not quiet
        self._started = self._last_progress = time.monotonic()
        self._faults = 0
        self._before = 0

    def start(self, signature: str, said: Iterable[str], assumed: Iterable[str]) -> None:
        """The signature, how the input is read and what had to be assumed; the clock starts here."""
        for line in (*(() if self._quiet else (signature, *said)), *assumed):
            self._say(line)
        self._started = self._last_progress = time.monotonic()

    def fault(self, place: str, fault: str) -> None:
        """A row that cannot be scored."""
        self._faults += 1
        if self._faults <= FAULTS_SHOWN:
            self._say(f"{place}: {fault}")

    def resumed(self, rows: int) -> None:
        """An interrupted run is continued after these rows; they do not count for the speed, nor does reading them."""
        self._before = rows
        self._started = time.monotonic()
        self._say(f"continuing after {rows} rows of an interrupted run")

    def kept(self, rows: int, name: str) -> None:
        """The run ends early, and what it has done stays."""
        self._say(f"{rows} rows are kept beside {name}; the same command continues after them")

    def progress(self, rows: int) -> None:
        """Rows done so far; shown on a terminal, now and then."""
        now = time.monotonic()
        if self._shows_progress and now - self._last_progress >= PROGRESS_SECONDS:
            self._last_progress = now
            rate = (rows - self._before) / (now - self._started)
            self._stream.write(f"{_CLEAR}{rows} rows, {rate:.1f} rows/s")
            self._stream.flush()

    def finish(self, statuses: Mapping[Status, int]) -> None:
        """Faults that were not shown, rows per status (those that occurred), and speed."""
        if self._faults > FAULTS_SHOWN:
            self._say(f"{self._faults - FAULTS_SHOWN} more rows could not be read or scored")
        if self._quiet:
            return
        seconds = time.monotonic() - self._started
        rows = sum(statuses.values())
        new = rows - self._before
        some = f"{rows} rows, {new} of them" if self._before else f"{rows} rows"
        self._say(f"{some} in {seconds:.1f} s ({new / seconds:.1f} rows/s): {counts_said(statuses)}")

    def _say(self, text: str) -> None:
        clear = _CLEAR if self._shows_progress else ""
        print(f"{clear}{one_line(text)}", file=self._stream, flush=True)


def counts_said(statuses: Mapping[Status, int]) -> str:
    """Rows per status, those that occurred, from the least to the most important: "998 ok, 2 truncated"."""
    return ", ".join(f"{statuses[status]} {status}" for status in reversed(Status) if status in statuses)
