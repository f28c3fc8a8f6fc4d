"""Text input: bytes of a file or of standard input, as physical lines that can be written back byte for byte."""

from __future__ import annotations

import io
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from qe_edge.errors import InputError
from qe_edge.rows import lone_surrogate

STDIN = "-"
SAMPLE_BYTES = 1 << 20
"""how much is read ahead to learn what kind of file it is"""
LINE_BYTES = 16 << 20
"""the longest line accepted; a longer one is no table, and would have to be held in memory"""
HEAD_BYTES = 1024
"""how much of the start is looked at to tell text from binary data"""
ODD_SHARE = 0.3
"""a start with a larger share of control characters and undecodable bytes is not UTF-8 text"""
BOM = b"\xef\xbb\xbf"
_ODD = re.compile("[\0-\x08\x0e-\x1f\udc80-\udcff]")
PACKED = {
    b"\x1f\x8b": "compressed with gzip; unpack it first, as with gzip -dc",
    b"BZh": "compressed with bzip2; unpack it first, as with bzip2 -dc",
    b"\xfd7zXZ\0": "compressed with xz; unpack it first, as with xz -dc",
    b"\x28\xb5\x2f\xfd": "compressed with zstd; unpack it first, as with zstd -dc",
    b"PK\x03\x04": "a zip archive, as those of spreadsheets are; save the table as tab-separated text in UTF-8",
    b"PAR1": "Parquet; give it a name that ends in .parquet",
}
"""what a binary file is by its first bytes, and what to do about it"""
_UNDECODED = range(0xDC80, 0xDD00)
"""surrogates that stand for a byte: 0xDC00 and its value"""


@dataclass(frozen=True, slots=True)
class Line:
    """A physical line: its number from 1, its text (undecodable bytes as lone surrogates), its ending."""

    number: int
    text: str
    end: str
    """newline, carriage return and newline, or nothing at the end of a file"""


@dataclass(frozen=True)
class TextInput:
    """An open text."""

    name: str
    """what messages call it"""
    bom: bool
    """whether it began with a byte order mark, which is not part of the first line"""
    sample: bytes
    """the first bytes, up to SAMPLE_BYTES"""
    rest: BinaryIO
    """open after the sample"""
    restart: int | None
    """where the sample ends, for an input that can be read again"""

    def lines(self) -> Iterator[Line]:
        """All physical lines, split at newlines only. Raises InputError on a read error or an endless line.

        A second call starts again, if the input was opened to be read twice.
        """
        if self.restart is not None:
            self.rest.seek(self.restart)
        for number, raw in enumerate(self._raw_lines(), 1):
            if len(raw) > LINE_BYTES:
                raise InputError(f"{self.name}:{number}: line of more than {LINE_BYTES >> 20} MiB; give a text table")
            yield decode(raw, number)

    def sample_lines(self) -> list[Line]:
        """The complete lines of the sample, without reading on."""
        raw = io.BytesIO(self.sample).readlines()
        if len(self.sample) >= SAMPLE_BYTES - len(BOM) and len(raw) > 1:
            raw.pop()
        return [decode(line, number) for number, line in enumerate(raw, 1)]

    def _raw_lines(self) -> Iterator[bytes]:
        for raw in io.BytesIO(self.sample):
            yield raw if raw.endswith(b"\n") else raw + self._read_line()
        while raw := self._read_line():
            yield raw

    def _read_line(self) -> bytes:
        try:
            return self.rest.readline(LINE_BYTES + 1)
        except OSError as error:
            raise InputError(f"{self.name}: reading failed ({error.strerror}); check the disk and try again") from None


def decode(raw: bytes, number: int) -> Line:
    """A physical line from its bytes: one ending is taken off, nothing else."""
    text = raw.decode("utf-8", "surrogateescape")
    for end in ("\r\n", "\n"):
        if text.endswith(end):
            return Line(number, text[: -len(end)], end)
    return Line(number, text, "")


def text_fault(text: str) -> str | None:
    """Why a row's text cannot be scored whatever its cells say, or None."""
    at = lone_surrogate(text)
    if at is not None:
        code, before = ord(text[at]), text[max(at - 20, 0) : at]
        if code in _UNDECODED:
            return f"not valid UTF-8: byte 0x{code - 0xDC00:02x} after {before!r}; save the file as UTF-8"
        return f"half a surrogate pair, U+{code:04X}, after {before!r}; write the whole character"
    if "\0" in text:
        return f"NUL byte after {text[: text.index(chr(0))][-20:]!r}; remove it"
    return None


@contextmanager
def open_text(path: str, *, twice: bool = False) -> Iterator[TextInput]:
    """Open a file, or standard input for "-", and look at its start.

    twice: make it readable again; what cannot be rewound, such as a pipe, is first copied to a temporary file.
    Raises InputError when it is missing, a directory, unreadable, empty, or not UTF-8 text.
    """
    name = "stdin" if path == STDIN else path
    with ExitStack() as closing:
        stream: BinaryIO = sys.stdin.buffer if path == STDIN else closing.enter_context(open_bytes(path))
        try:
            if twice and not stream.seekable():
                copy = closing.enter_context(tempfile.TemporaryFile())
                shutil.copyfileobj(stream, copy)
                copy.seek(0)
                stream = copy
            sample = stream.read(SAMPLE_BYTES)
            restart = stream.tell() if twice else None
        except OSError as error:
            raise InputError(f"{name}: reading failed ({error.strerror}); check the disk and try again") from None
        _refuse_non_text(name, sample)
        yield TextInput(name, sample.startswith(BOM), sample.removeprefix(BOM), stream, restart)


def open_bytes(path: str) -> BinaryIO:
    """Open a file to be read. Raises InputError when it is missing, a directory or unreadable."""
    try:
        return Path(path).open("rb")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check the path") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a directory; give a text file in it") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{path}: cannot be opened ({reason}); check the path and its permissions") from None


def _refuse_non_text(name: str, sample: bytes) -> None:
    if not sample.removeprefix(BOM):
        raise InputError(f"{name}: the file is empty; give a table with at least one row")
    if sample.startswith((b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff")):
        raise InputError(f"{name}: the text is UTF-16 or UTF-32; save it as UTF-8")
    head = sample[:HEAD_BYTES].decode("utf-8", "surrogateescape")
    if len(_ODD.findall(head)) > ODD_SHARE * len(head):
        for beginning, said in PACKED.items():
            if sample.startswith(beginning):
                raise InputError(f"{name}: is {said}")
        raise InputError(f"{name}: binary data or another encoding than UTF-8; give a text file saved as UTF-8")
    if b"\n" not in sample and b"\r" in sample.rstrip(b"\r"):
        raise InputError(f"{name}: lines end in bare carriage returns; save it with newlines (LF or CRLF) as line ends")
