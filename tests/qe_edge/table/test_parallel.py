"""Two aligned files as items: one line is one row, and files that do not align are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from qe_edge.errors import InputError, UsageError
from qe_edge.prompt import Prompt
from qe_edge.rows import Row, Score, Status
from qe_edge.table.items import Item
from qe_edge.table.parallel import open_parallel


def write(folder: Path, sources: bytes, translations: bytes) -> tuple[str, str]:
    (folder / "src.txt").write_bytes(sources)
    (folder / "mt.txt").write_bytes(translations)
    return str(folder / "src.txt"), str(folder / "mt.txt")


def items(paths: tuple[str, str], lp: str | None = "et-en") -> list[Item]:
    with open_parallel(*paths, lp=lp) as opened:
        return list(opened.items)


def test_line_n_of_one_is_the_translation_of_line_n_of_the_other(tmp_path: Path) -> None:
    found = items(write(tmp_path, b"Tere\r\n\njah", b"Hello\na\tb\nyes\n"))
    assert [item.row for item in found] == [
        Row.translation("Tere", "Hello", "et", "en"),
        Row.translation("", "a\tb", "et", "en"),
        Row.translation("jah", "yes", "et", "en"),
    ]
    assert [item.place for item in found] == [f"{tmp_path}/mt.txt:{line}" for line in (1, 2, 3)]


def test_the_output_is_one_score_a_line(tmp_path: Path) -> None:
    with open_parallel(*write(tmp_path, b"a\r\nb\r\n", b"c\nd\n"), lp="et-en") as opened:
        first, second = opened.items
        assert opened.header == ""
        assert opened.render(first, Score(71.5, Status.OK)) == "71.5000\n"
        assert opened.render(second, Score(None, Status.EMPTY_SOURCE)) == "\n"


def test_different_numbers_of_lines_are_refused_with_both(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"src\.txt has 3 lines, .*mt\.txt has 2; line n of one must be"):
        items(write(tmp_path, b"a\nb\nc\n", b"a\nb\n"))


def test_a_line_that_is_no_utf8_is_a_fault_at_its_own_place(tmp_path: Path) -> None:
    found = items(write(tmp_path, b"Tere\nKohv Caf\xe9 ja tee\n", b"Hello\nCoffee\n"))
    assert found[1].row.fault == "not valid UTF-8: byte 0xe9 after 'Kohv Caf'; save the file as UTF-8"
    assert found[1].place == f"{tmp_path}/src.txt:2"


def test_languages_are_detected(tmp_path: Path) -> None:
    paths = write(
        tmp_path,
        "Tere hommikust, kuidas teil täna läheb?\n".encode(),
        b"Good morning, how are you doing today?\n",
    )
    with open_parallel(*paths) as opened:
        assert opened.assumed == ("languages detected: et -> en from 1 rows (100 % agree); override with --lp",)
        assert [item.row.pair for item in opened.items] == ["et-en"]


def test_standard_input_cannot_be_both_files() -> None:
    with pytest.raises(UsageError, match="standard input can be only one"):
        items(("-", "-"))


def test_a_prompt_that_names_no_language_needs_none(tmp_path: Path) -> None:
    paths = write(tmp_path, b"7\n", b"8\n")
    with open_parallel(*paths, prompt=Prompt("{src} = {mt}")) as opened:
        assert opened.said == ("read as 1 aligned lines",)
        assert [item.row for item in opened.items] == [Row(("7", "8"))]
    with (
        pytest.raises(UsageError, match="--lp et-en: the prompt of this bundle names no language"),
        open_parallel(*paths, prompt=Prompt("{src} = {mt}"), lp="et-en"),
    ):
        pass


def test_other_texts_than_translations_are_refused() -> None:
    with (
        pytest.raises(UsageError, match="this bundle reads translation, source: give a table with these columns"),
        open_parallel("a", "b", prompt=Prompt("{mt} {src}"), lp="et-en"),
    ):
        pass
