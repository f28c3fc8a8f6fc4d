"""How a command ends when the system steps in: a signal, no memory left, standard streams that are closed."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, BinaryIO, NoReturn, TextIO, cast

from qe_edge.errors import OutOfMemoryError, OutputError

STOPPING = {"SIGTERM": "terminated", "SIGHUP": "hung up"}
"""signals that end a command as Ctrl-C does, where the system has them, and what is said then"""


class _Stopped(SystemExit):
    """One of these signals has come; the exit code is the usual 128 + its number."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.said = STOPPING[signal.Signals(number).name]


@contextmanager
def ended_in_order() -> Iterator[None]:
    """Let signals end the block as errors do, so that it can say what it keeps, and tell a lack of memory in one line.

    The first of Ctrl-C, SIGTERM and SIGHUP lets the block clean up; a second one ends the process at once, which loses
    nothing that a journal knows. A signal that somebody has chosen to ignore or to handle stays with that choice, as
    under `nohup`. Raises OutOfMemoryError for MemoryError.
    """
    with _stopping_signals():
        try:
            yield
        except (MemoryError, RuntimeError) as error:
            if not _lacks_memory(error):
                raise
            details = (str(error).strip() or "no details").splitlines()[0]
            raise OutOfMemoryError(
                f"not enough memory ({details}); free some, or let the command use less (--threads, batches)"
            ) from None
        except _Stopped as stopped:
            with suppress(OSError):  # after a hang-up there may be no terminal to tell
                print(f"qe-edge: {stopped.said}", file=sys.stderr)
            raise


def _lacks_memory(error: Exception) -> bool:
    """Whether an error says so: Python's own, or one of torch, for a GPU and for the host."""
    own = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return own or "can't allocate memory" in str(error)


@contextmanager
def _stopping_signals() -> Iterator[None]:
    untouched = (signal.SIG_DFL, signal.default_int_handler)
    names = [name for name in ("SIGINT", *STOPPING) if hasattr(signal, name)]
    before = {getattr(signal, name): signal.getsignal(getattr(signal, name)) for name in names}
    ours = [number for number, handler in before.items() if handler in untouched]

    def stop(number: int, _: FrameType | None) -> NoReturn:
        for each in ours:
            signal.signal(each, signal.SIG_DFL)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise _Stopped(number)

    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
        ours = []
    for number in ours:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, before[number])


def occupy_closed_streams() -> None:
    """Put the null device where standard input, output or error is closed.

    Otherwise the next file to be opened would take that number, and messages of libraries would be written into it.
    Python's own stream stays missing, so that who needs it says so, except for messages, which then go nowhere.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number: this one
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", closefd=False, errors="backslashreplace")


@contextmanager
def output_reported() -> Iterator[None]:
    """Let whatever prints to standard output in the block end in an OutputError where that cannot be written.

    A reader that leaves early stays a BrokenPipeError. What a file name holds that is no text comes out escaped, as on
    standard error.
    """
    before = sys.stdout
    reported = _Closed() if before is None else _Reported(before)
    sys.stdout = cast(TextIO, reported)
    try:
        yield
    finally:
        sys.stdout = before
        if isinstance(reported, _Reported) and reported.failed:  # what is still buffered must not fail at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), before.fileno())


class _Reported:
    """Standard output that says why it cannot be written; else it is the stream that it stands for."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.failed = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        encoding = self._stream.encoding or "utf-8"  # none where text is kept as it is
        with self._told():
            return self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))

    def flush(self) -> None:
        with self._told():
            self._stream.flush()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.failed = True
            if isinstance(error, BrokenPipeError):
                raise
            raise OutputError(
                f"stdout: cannot be written ({error.strerror}); free some space there, or send it elsewhere"
            ) from None


class _Closed(io.TextIOBase):
    """Standard output that is closed: no fault until somebody needs it."""

    encoding, errors = "utf-8", "strict"

    def write(self, _: str) -> NoReturn:
        raise OutputError("stdout: is closed; open it")

    @property
    def buffer(self) -> BinaryIO:
        raise OutputError("stdout: is closed; open it, or give -o FILE")
