"""Where scores go: standard output, or a file that appears under its name only when it is complete."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from qe_edge.errors import OutputError
from qe_edge.table.text import STDIN


class Output:
    """An open output. Bytes that were undecodable in the input are written as they were."""

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self._stream = stream
        self._name = name

    def write(self, text: str) -> None:
        """Raises OutputError when the text cannot be written, BrokenPipeError when nobody reads standard output."""
        with _reported(self._name):
            self._stream.write(text.encode("utf-8", "surrogateescape"))

    def flush(self) -> None:
        """Write what is buffered; raises as `write`."""
        with _reported(self._name):
            self._stream.flush()


@contextmanager
def open_output(path: str | None, inputs: list[str]) -> Iterator[Output]:
    """Open standard output (None or "-") or a file.

    A file is written beside its final place and renamed at the end; after an error nothing of it is left, and a file
    that was there before stays as it was. A device or a pipe is written directly.
    Raises OutputError at once when the path is one of the inputs, a directory, or cannot be written.
    """
    if path is None or path == STDIN:
        with _standard_output() as output:
            yield output
        return
    target = Path(path)
    if target.is_dir():
        raise OutputError(f"{path}: is a directory; give the name of a file")
    if any(_same_file(target, Path(name)) for name in inputs):
        raise OutputError(f"{path}: is the input itself; give another name to -o")
    direct = target.exists() and not target.is_file()
    final = target.resolve()  # a link stays a link
    partial = target if direct else final.with_name(f".{final.name}.{os.getpid()}.part")
    with _reported(path):
        stream = partial.open("wb")
    try:
        yield Output(stream, path)
        with _reported(path):
            stream.close()
            if not direct:
                partial.replace(final)
    finally:
        # After a failed write the stream would fail once more on closing; the first error is the one to tell.
        with suppress(OSError):
            stream.close()
        if not direct:
            partial.unlink(missing_ok=True)


@contextmanager
def _standard_output() -> Iterator[Output]:
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
        raise OutputError(
            f"{name}: cannot be written ({error.strerror}); check the folder, its permissions and free space"
        ) from None


def _same_file(target: Path, name: Path) -> bool:
    return target.exists() and name.exists() and target.samefile(name)
