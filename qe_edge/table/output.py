"""Where scores go: standard output, or a file that appears under its name only when it is complete."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import UnsupportedOperation
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from qe_edge.errors import OutputError
from qe_edge.rows import Status
from qe_edge.table.journal import Identity, Journal, Progress, forget
from qe_edge.table.paths import is_folder, is_special, open_file, permit_like
from qe_edge.table.text import STDIN

CHECKPOINT_ROWS = 1024
"""After so many rows, what is done is put on the disk and noted in the journal. Two of a scorer's windows, so that
a run that is continued has the same windows as one that was never interrupted."""


REMEDIES = {
    errno.ENOSPC: "free some space there and give the same command again",
    errno.EDQUOT: "free some of your quota there and give the same command again",
    errno.EFBIG: "files may grow no larger there: raise the limit (ulimit -f), or give another -o",
    errno.ENOENT: "the folder is missing or was removed: make it, and give the same command again",
    errno.EACCES: "no permission: make the folder writable, or give another -o",
    errno.EROFS: "the file system is read-only: give another -o",
}
"""What to do about the usual errors of an output, by their number."""


class Output:
    """An open output. Bytes that were undecodable in the input are written as they were."""

    def __init__(self, stream: BinaryIO, name: str, notes: Path | None = None) -> None:
        self._stream = stream
        self._name = name
        self._notes = notes
        self._journal: Journal | None = None

    @property
    def resumable(self) -> bool:
        """Whether this run could be continued if it were interrupted."""
        return self._journal is not None

    def resume(self, identity: Identity) -> None:
        """Go on where an interrupted run of this identity was, if there is one, and note from now on what is done.

        What is longer than the journal says is cut off. Raises InputError when the interrupted run is another one;
        does nothing for an output that keeps no journal.
        """
        if self._notes is None:
            return
        with _reported(self._name):
            self._journal = Journal(self._notes, identity, self._name)
            if self._stream.seek(0, os.SEEK_END) < self._journal.progress.output_bytes:
                self._journal.forget()  # the output is not what the journal knows: it is written anew
            self._stream.truncate(self._journal.progress.output_bytes)
            self._stream.seek(0, os.SEEK_END)

    @property
    def progress(self) -> Progress:
        """How far an earlier run, or this one, has come for good."""
        return Progress() if self._journal is None else self._journal.progress

    @property
    def kept(self) -> int:
        """How many rows stay beside a file that is not finished, for the same command to go on after."""
        return 0 if self._journal is None else self._journal.kept

    def write(self, text: str) -> None:
        """Raises OutputError when the text cannot be written, BrokenPipeError when nobody reads standard output."""
        with _reported(self._name):
            self._stream.write(text.encode("utf-8", "surrogateescape"))

    def flush(self) -> None:
        """Write what is buffered; raises as `write`."""
        with _reported(self._name):
            self._stream.flush()

    def due(self, rows: int) -> bool:
        """Whether a checkpoint belongs after `rows` rows in all."""
        return self._journal is not None and rows % CHECKPOINT_ROWS == 0

    def checkpoint(self, rows: int, tally: Counter[Status], read: str) -> None:
        """Put what was written on the disk and note that it belongs to the first `rows` rows; raises as `write`.

        tally: rows per status; read: hash of these rows (`RowHash`).
        """
        assert self._journal is not None, "checkpoints are for outputs with a journal"
        with _reported(self._name):
            self._stream.flush()
            os.fsync(self._stream.fileno())
            self._journal.record(Progress(rows, self._stream.tell(), read, Counter(tally)))


@contextmanager
def open_output(
    path: str | None,
    inputs: list[str],
    *,
    resumable: bool = False,
    restart: bool = False,
    finish: Callable[[Path, Path], object] = Path.replace,
) -> Iterator[Output]:
    """Open standard output (None or "-", or its name under /dev) or a file.

    A file is written beside its final place and renamed at the end; a file that was there before stays until then, and
    leaves its permissions. If
    it is resumable, what an interrupted run has done stays beside it, too (`qe_edge.table.journal`), for
    `Output.resume`, unless `restart` throws it away; otherwise nothing is left after an error. A device, a pipe, or
    what the shell has opened (`/dev/stdout`, `/dev/fd/3`) is written directly.

    finish: makes the file, its second argument, of the one that was written (`Input.finish`).

    Raises OutputError at once when the path is one of the inputs, when writing it would overwrite one on the way, when
    it is a directory, cannot be written, or is being written by another run.
    """
    if path is None or path == STDIN or open_file(path) == 1:
        with _standard_output(inputs) as output:
            yield output
        return
    target = Path(path)
    with _reported(path):
        final = Path(os.path.realpath(target))  # a link stays a link
        leads_back = final.is_symlink()
    if is_folder(target):
        raise OutputError(f"{path}: is a directory; give the name of a file")
    if path.endswith("/"):
        raise OutputError(f"{path}: is a name for a directory; give the name of a file")
    if leads_back:
        raise OutputError(f"{path}: is a link that leads back to itself; give another name to -o")
    for name in inputs:
        if _same_file(final, name):
            raise OutputError(f"{path}: is the input itself; give another name to -o")
        if any(_same_file(beside(final, end), name) for end in LEFT):
            raise OutputError(f"{path}: would overwrite {name}, which is kept for it; copy that, or give another -o")
    if is_special(target) or open_file(path) is not None:  # the real path of a pipe under /dev/fd is no path
        with _direct(path, target) as output:
            yield output
        return
    with (
        alone(path, final),
        _journalled(path, final, restart, finish) if resumable else _renamed(path, final, finish) as output,
    ):
        yield output


LEFT = ("part", "journal", "lock")
"""Ends of the hidden files beside an output that is not finished."""


def beside(final: Path, end: str) -> Path:
    """The hidden file .OUT.END beside an output."""
    return final.with_name(f".{final.name}.{end}")


def belongs_to(path: Path, final: Path) -> bool:
    """Whether a path is that of an output, or could be one of the hidden files beside it."""
    return path.parent == final.parent and (path.name == final.name or path.name.startswith(f".{final.name}."))


@contextmanager
def _direct(path: str, target: Path) -> Iterator[Output]:
    number = open_file(path)
    with _reported(path):  # opened by its name, a file that is open for more would be emptied
        stream = target.open("wb") if number is None else os.fdopen(os.dup(number), "wb")
    with _closed(path, stream):
        yield Output(stream, path)


@contextmanager
def _renamed(path: str, final: Path, finish: Callable[[Path, Path], object]) -> Iterator[Output]:
    """A new file that takes its name at the end, or leaves nothing."""
    partial = final.with_name(f".{final.name}.{os.getpid()}.part")
    with _reported(path):
        stream = partial.open("wb")
        permit_like(partial, final)
    try:
        with _closed(path, stream):
            yield Output(stream, path)
        with _reported(path):
            finish(partial, final)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def _journalled(path: str, final: Path, restart: bool, finish: Callable[[Path, Path], object]) -> Iterator[Output]:
    """A file that can be continued where an interrupted run left it, and takes its name at the end."""
    partial, notes = beside(final, "part"), beside(final, "journal")
    with _reported(path):
        if restart or not partial.exists():  # without it, an earlier run was killed when it had just finished
            forget(notes)
        if not notes.exists():
            partial.write_bytes(b"")
        permit_like(partial, final)
        stream = partial.open("r+b")
    try:
        with _closed(path, stream):
            yield Output(stream, path, notes)
            with _reported(path):
                stream.flush()
                os.fsync(stream.fileno())
        with _reported(path):
            finish(partial, final)
            forget(notes)
    finally:
        if not notes.exists():  # nothing to continue from
            partial.unlink(missing_ok=True)


@contextmanager
def alone(path: str, final: Path) -> Iterator[None]:
    """Refuse a second run on the same output while the first goes on; a killed run holds nothing."""
    file = beside(final, "lock")
    lock = FileLock(file)
    with _reported(path):
        os.scandir(final.parent).close()  # a lock would make the folder
        try:
            lock.acquire(blocking=False)
        except Timeout:  # an OSError, too
            raise OutputError(f"{path}: another run is writing it; wait for that one, or give another -o") from None
    try:
        yield
    finally:
        with suppress(OSError):  # Windows keeps a file that is open: the lock stays, and holds nothing
            file.unlink()
        lock.release()


@contextmanager
def _closed(path: str, stream: BinaryIO) -> Iterator[None]:
    """Close a stream at the end. After a failed write it would fail once more: the first error is the one to tell."""
    try:
        yield
        with _reported(path):
            stream.close()
    finally:
        with suppress(OSError):
            stream.close()


@contextmanager
def _standard_output(inputs: list[str]) -> Iterator[Output]:
    if sys.stdout is None:
        raise OutputError("stdout: is closed; open it, or give -o FILE")
    with suppress(UnsupportedOperation):  # no file at all
        if any(_same_file(sys.stdout.fileno(), name) for name in inputs):
            raise OutputError("stdout: is the input itself; give -o FILE with another name")
    output = Output(sys.stdout.buffer, "stdout")
    try:
        yield output
        output.flush()
    except (BrokenPipeError, OutputError):
        # The reader, such as `head`, has enough, or the disk is full: what is still buffered must not fail at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


@contextmanager
def _reported(name: str) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        remedy = REMEDIES.get(error.errno or 0, "check the folder, its permissions and free space")
        raise OutputError(f"{name}: cannot be written ({error.strerror or error}); {remedy}") from None


def _same_file(target: Path | int, name: str) -> bool:
    """Whether a path or an open file is the ordinary file that is read by this name. What cannot be found is not."""
    with suppress(OSError, ValueError):  # ValueError: standard input is closed, or no file
        found = target.stat() if isinstance(target, Path) else os.fstat(target)
        read = os.fstat(sys.stdin.fileno()) if name == STDIN and sys.stdin is not None else Path(name).stat()
        return stat.S_ISREG(found.st_mode) and os.path.samestat(found, read)
    return False
