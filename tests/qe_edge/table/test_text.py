"""Text input: physical lines keep every byte; what is no text is refused at once."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import threading
from pathlib import Path

import pytest

from qe_edge.errors import InputError
from qe_edge.table import text as text_module
from qe_edge.table.text import Line, decode, open_text, text_fault


def lines_of(path: Path) -> list[Line]:
    with open_text(str(path)) as text:
        return list(text.lines())


def write(folder: Path, content: bytes) -> Path:
    path = folder / "input.tsv"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("raw", "text", "end"),
    [
        (b"a\tb\n", "a\tb", "\n"),
        (b"a\tb\r\n", "a\tb", "\r\n"),
        (b"a\tb", "a\tb", ""),
        (b"a\t\t\n", "a\t\t", "\n"),  # empty last cells stay
        (b"a \n", "a ", "\n"),
        (b"a\r\r\n", "a\r", "\r\n"),  # one ending, no more
        (b"a\xe9\n", "a\udce9", "\n"),
    ],
)
def test_one_line_ending_is_taken_off_and_nothing_else(raw: bytes, text: str, end: str) -> None:
    assert decode(raw, 7) == Line(7, text, end)


@pytest.mark.parametrize("separator", ["\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029", "\r"])
def test_only_a_newline_ends_a_line(tmp_path: Path, separator: str) -> None:
    path = write(tmp_path, f"long enough text a{separator}b\nc\n".encode())
    assert [line.text for line in lines_of(path)] == [f"long enough text a{separator}b", "c"]


def test_a_line_that_crosses_the_end_of_the_sample_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_module, "SAMPLE_BYTES", 8)
    path = write(tmp_path, b"abcde\nfghij\nklm\n")
    assert [line.text for line in lines_of(path)] == ["abcde", "fghij", "klm"]
    with open_text(str(path)) as text:
        assert [line.text for line in text.sample_lines()] == ["abcde"]


def test_the_sample_of_a_short_file_holds_its_last_line(tmp_path: Path) -> None:
    with open_text(str(write(tmp_path, b"abc\ndef"))) as text:
        assert [line.text for line in text.sample_lines()] == ["abc", "def"]


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    with open_text(str(write(tmp_path, b"\xef\xbb\xbfabc\n"))) as text:
        assert text.bom
        assert [line.text for line in text.lines()] == ["abc"]


def test_an_endless_line_is_refused_with_its_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_module, "LINE_BYTES", 100)
    path = write(tmp_path, b"abc\n" + b"x" * 101)
    with pytest.raises(InputError, match=r"input\.tsv:2: line of more than"):
        lines_of(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"\xef\xbb\xbf", "the file is empty"),
        ("original\ttranslation\n".encode("utf-16"), "the text is UTF-16 or UTF-32; save it as UTF-8"),
        ("original\ttranslation\n".encode("utf-32"), "the text is UTF-16 or UTF-32; save it as UTF-8"),
        (b"\0\0\xfe\xff" + "original\n".encode("utf-32-be"), "the text is UTF-16 or UTF-32; save it as UTF-8"),
        ("original\ttranslation\n".encode("utf-16-le"), "binary data or another encoding than UTF-8"),
        (b"src\tmt\ra\tb\rc\td\r", "lines end in bare carriage returns; save it with newlines"),
        (gzip.compress(b"src\tmt\na\tb\n", mtime=0), "is compressed with gzip; unpack it first, as with gzip -dc$"),
        (bz2.compress(b"src\tmt\na\tb\n"), "is compressed with bzip2; unpack it first, as with bzip2 -dc$"),
        (lzma.compress(b"src\tmt\na\tb\n"), "is compressed with xz; unpack it first, as with xz -dc$"),
        (b"PK\x03\x04\x00\x00abc", "is a zip archive, as those of spreadsheets are; save the table as tab-separated"),
        (os.urandom(4096).replace(b"\0", b"\x01"), "binary data"),
        ("Привет, мир\n".encode("cp1251") * 10, "another encoding than UTF-8"),
    ],
)
def test_what_is_no_text_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        lines_of(write(tmp_path, content))


def test_a_nul_byte_does_not_make_a_text_binary(tmp_path: Path) -> None:
    path = write(tmp_path, b"original\ttranslation\nTe\0re\tHello\n")
    assert [line.text for line in lines_of(path)] == ["original\ttranslation", "Te\0re\tHello"]


def test_a_carriage_return_before_the_end_of_a_file_makes_no_line(tmp_path: Path) -> None:
    assert lines_of(write(tmp_path, b"text\r")) == [Line(1, "text\r", "")]


def test_a_few_bad_bytes_do_not_make_a_text_binary(tmp_path: Path) -> None:
    path = write(tmp_path, b"original\ttranslation\nCaf\xe9\tCoffee\n")
    assert [line.number for line in lines_of(path)] == [1, 2]


def test_a_missing_file_and_a_directory_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        lines_of(tmp_path / "missing.tsv")
    with pytest.raises(InputError, match="is a directory"):
        lines_of(tmp_path)
    with pytest.raises(InputError, match="cannot be opened"):
        lines_of(write(tmp_path, b"abc") / "below.tsv")


def test_faults_of_a_text_name_the_byte_and_where_it_stands() -> None:
    assert text_fault("Tere, maailm! 你好") is None
    assert text_fault("Caf\udce9 noir") == "not valid UTF-8: byte 0xe9 after 'Caf'; save the file as UTF-8"
    assert text_fault("a\0b") == "NUL byte after 'a'; remove it"
    assert text_fault("a\ud83d b") == "half a surrogate pair, U+D83D, after 'a'; write the whole character"
    assert (
        text_fault("x" * 30 + "\udc7f")
        == f"half a surrogate pair, U+DC7F, after '{'x' * 20}'; write the whole character"
    )


def test_standard_input_is_read_under_its_own_name(monkeypatch: pytest.MonkeyPatch) -> None:
    class Standard:
        buffer = io.BytesIO(b"abc\ndef\n")

    monkeypatch.setattr("sys.stdin", Standard)
    with open_text("-") as text:
        assert text.name == "stdin"
        assert [line.text for line in text.lines()] == ["abc", "def"]


def test_a_pipe_can_be_read_twice_when_asked_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(b"abc\ndef\n",))
    writer.start()
    with open_text(str(pipe), twice=True) as text:
        first = list(text.lines())
        assert [line.text for line in first] == ["abc", "def"]
        assert list(text.lines()) == first
    writer.join()
