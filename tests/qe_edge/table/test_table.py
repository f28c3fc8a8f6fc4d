"""A table as items: every row comes out, in order and byte for byte, and says what is wrong with it."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Literal

import pytest

from qe_edge.errors import InputError, UsageError
from qe_edge.prompt import Prompt
from qe_edge.rows import Row, Score, Status
from qe_edge.table.items import Item
from qe_edge.table.quoting import Quoting
from qe_edge.table.table import open_table

SAMPLES = sorted((Path(__file__).parent / "data").glob("*.tsv"))
OK = Score(12.34567, Status.OK)


def write(folder: Path, content: str | bytes) -> str:
    path = folder / "f.tsv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def items(path: str, lp: str | None = "et-en", quoting: Quoting | None = None, fields: str | None = None) -> list[Item]:
    with open_table(path, lp=lp, quoting=quoting, fields=fields) as table:
        return list(table.items)


def output(
    path: str, score: Score = OK, lp: str | None = "et-en", quoting: Quoting | None = None, fields: str | None = None
) -> bytes:
    with open_table(path, lp=lp, quoting=quoting, fields=fields) as table:
        text = table.header + "".join(table.render(item, score) for item in table.items)
    return text.encode("utf-8", "surrogateescape")


def faults(path: str, lp: str | None = "et-en", quoting: Quoting | None = None) -> list[str | None]:
    return [item.row.fault for item in items(path, lp, quoting)]


def test_rows_are_read_by_column_name_and_keep_their_line_numbers(tmp_path: Path) -> None:
    found = items(write(tmp_path, "id\tMT\tSource\n7\tHello\tTere\n8\tyes\tjah\n"))
    assert [item.row for item in found] == [
        Row.translation("Tere", "Hello", "et", "en"),
        Row.translation("jah", "yes", "et", "en"),
    ]
    assert [item.place for item in found] == [f"{tmp_path}/f.tsv:2", f"{tmp_path}/f.tsv:3"]


def test_the_output_adds_two_cells_and_changes_nothing_else(tmp_path: Path) -> None:
    path = write(tmp_path, 'src\tmt\tnote\nTere\t Hello \t\n"jah\tyes"\t\t\n')
    assert output(path) == (
        b'src\tmt\tnote\tqe_score\tqe_status\nTere\t Hello \t\t12.3457\tok\n"jah\tyes"\t\t\t12.3457\tok\n'
    )


def test_a_row_without_a_score_has_an_empty_cell(tmp_path: Path) -> None:
    path = write(tmp_path, "src\tmt\na\t\n")
    assert output(path, Score(None, Status.EMPTY_TRANSLATION)).endswith(b"a\t\t\tempty_translation\n")


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_line_endings_and_byte_order_mark_are_kept_and_the_last_line_is_ended(
    tmp_path: Path, end: str, bom: str
) -> None:
    path = write(tmp_path, f"{bom}src\tmt{end}a\tb{end}c\td")
    expected = f"{bom}src\tmt\tqe_score\tqe_status{end}a\tb\t12.3457\tok{end}c\td\t12.3457\tok{end}"
    assert output(path) == expected.encode()


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_rows_of_mlqe_pe_come_out_byte_for_byte(path: Path) -> None:
    before = path.read_bytes().removesuffix(b"\n").split(b"\n")
    after = output(str(path)).removesuffix(b"\n").split(b"\n")
    assert after == [before[0] + b"\tqe_score\tqe_status"] + [line + b"\t12.3457\tok" for line in before[1:]]


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
@pytest.mark.parametrize("style", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL], ids=["minimal", "all"])
def test_a_quoted_table_keeps_its_quotes_and_its_texts_have_none(
    tmp_path: Path, path: Path, style: Literal[0, 1]
) -> None:
    plain = items(str(path))
    rows = [line.split("\t") for line in path.read_bytes().decode().removesuffix("\n").split("\n")]
    file = io.StringIO(newline="")
    csv.writer(file, delimiter="\t", lineterminator="\r\n", quoting=style).writerows(rows)
    quoted = write(tmp_path, file.getvalue())
    assert [item.row for item in items(quoted)] == [item.row for item in plain]
    again = csv.reader(io.StringIO(output(quoted).decode(), newline=""), delimiter="\t", strict=True)
    assert list(again) == [
        [*rows[0], "qe_score", "qe_status"],
        *([*row, "12.3457", "ok"] for row in rows[1:]),
    ]


def test_a_cell_with_tabs_and_line_breaks_stays_one_cell_of_one_row(tmp_path: Path) -> None:
    path = write(tmp_path, 'src\tmt\n"a\t\tb\nc"\t"say ""d"""\ne\tf\n')
    found = items(path)
    assert [item.row for item in found] == [
        Row.translation("a\t\tb\nc", 'say "d"', "et", "en"),
        Row.translation("e", "f", "et", "en"),
    ]
    assert [item.place.rpartition(":")[2] for item in found] == ["2", "4"]
    assert output(path).startswith(b'src\tmt\tqe_score\tqe_status\n"a\t\tb\nc"\t"say ""d"""\t12.3457\tok\n')


def test_quoting_that_is_told_is_not_decided(tmp_path: Path) -> None:
    path = write(tmp_path, 'src\tmt\n"say ""a"""\tb\n')
    assert items(path)[0].row.texts[0] == 'say "a"'
    assert items(path, quoting=Quoting.NONE)[0].row.texts[0] == '"say ""a"""'


def test_too_few_cells_are_filled_and_too_many_are_joined(tmp_path: Path) -> None:
    path = write(tmp_path, "src\tmt\tnote\na\tb\nc\td\te\tf\tg\n\nh\ti\tj\n")
    assert output(path, Score(None, Status.INVALID)).split(b"\n")[1:] == [
        b"a\tb\t\t\tinvalid",
        b"c\td\te f g\t\tinvalid",
        b"\t\t\t\tinvalid",
        b"h\ti\tj\t\tinvalid",
        b"",
    ]
    assert faults(path) == [
        "2 instead of 3 cells: 'a\\tb'; check the tabs of this row",
        "5 instead of 3 cells: 'c\\td\\te\\tf\\tg'; check the tabs of this row",
        "1 instead of 3 cells: ''; check the tabs of this row",
        None,
    ]


def test_a_row_that_breaks_the_quoting_is_written_so_that_the_output_can_be_read(tmp_path: Path) -> None:
    path = write(tmp_path, 'src\tmt\n"a\tb\nc\t"d ""e"""\n')
    found = items(path, quoting=Quoting.CSV)
    assert [item.row.fault is None for item in found] == [False, True]
    assert found[0].row.fault is not None
    assert found[0].row.fault.startswith("quote mark not closed: '\"a\\tb'; double the quote marks")
    text = output(path, quoting=Quoting.CSV).decode()
    assert list(csv.reader(io.StringIO(text), delimiter="\t", strict=True))[1:] == [
        ['"a', "b", "12.3457", "ok"],
        ["c", 'd "e"', "12.3457", "ok"],
    ]


def test_bytes_that_are_no_utf8_are_a_fault_of_their_row_and_are_kept(tmp_path: Path) -> None:
    path = write(tmp_path, b"src\tmt\nTere\tHello\nCaf\xe9\tCoffee\njah\tyes\n")
    assert faults(path) == [None, "not valid UTF-8: byte 0xe9 after 'Caf'; save the file as UTF-8", None]
    assert output(path).split(b"\n")[2] == b"Caf\xe9\tCoffee\t12.3457\tok"


def test_a_nul_byte_is_a_fault_of_its_row_and_is_kept(tmp_path: Path) -> None:
    path = write(tmp_path, b"src\tmt\n" + b"Tere\tHello\n" * 200 + b"a\0b\tc\n")
    assert faults(path)[-2:] == [None, "NUL byte after 'a'; remove it"]
    assert output(path).split(b"\n")[-2] == b"a\0b\tc\t12.3457\tok"


def test_languages_come_from_the_rows(tmp_path: Path) -> None:
    path = write(tmp_path, "lp\tsrc\tmt\net-en\ta\tb\nRomanian-English\tc\td\nxx-en\te\tf\n\tg\th\n")
    found = items(path, lp=None)
    assert [item.row.pair for item in found[:2]] == ["et-en", "ro-en"]
    assert found[2].row.fault is not None
    assert found[2].row.fault.startswith("unknown language 'xx'; ")
    assert found[3].row.fault is not None
    assert found[3].row.fault.startswith("'' does not name one language pair; ")


def test_languages_come_from_two_columns(tmp_path: Path) -> None:
    path = write(tmp_path, "src_lang\ttgt_lang\tsrc\tmt\nest\tEnglish\ta\tb\n")
    assert items(path, lp=None)[0].row == Row.translation("a", "b", "et", "en")


def test_a_pair_that_is_told_wins_over_the_column_and_this_is_said(tmp_path: Path) -> None:
    path = write(tmp_path, "lp\tsrc\tmt\nro-en\ta\tb\n")
    assert items(path, lp="et-en")[0].row.pair == "et-en"
    with open_table(path, lp="et-en") as table:
        assert table.said[-1] == "languages: et -> en from --lp, which overrides column 'lp'"
        assert table.assumed == ()


@pytest.mark.parametrize("names", [("lp", "LP"), ("src_lang", "src_lang"), ("lp", "tgt_lang")], ids=" ".join)
def test_language_columns_may_be_there_twice_where_the_languages_are_told(
    tmp_path: Path, names: tuple[str, str]
) -> None:
    path = write(tmp_path, f"{names[0]}\tsrc\tmt\t{names[1]}\nro-en\ta\tb\t?\n")
    with open_table(path, lp="et-en") as table:
        assert table.said[-1].endswith(f"from --lp, which overrides column {names[0]!r} and {names[1]!r}")
        assert [(item.row.fault, item.row.pair) for item in table.items] == [(None, "et-en")]


def test_languages_that_nobody_gave_are_detected_and_this_is_said() -> None:
    path = next(path for path in SAMPLES if path.stem == "et-en")
    with open_table(str(path)) as table:
        assert table.assumed[0].startswith("languages detected: et -> en from 15 rows (")
        assert table.assumed[0].endswith(" % agree); override with --lp")
        assert {item.row.pair for item in table.items} == {"et-en"}


def test_how_the_table_is_read_is_said(tmp_path: Path) -> None:
    path = write(tmp_path, "id\tsrc\tmt\n1\ta\tb\n")
    with open_table(path, lp="et-en") as table:
        assert table.said == (
            "read as unquoted TSV (decided from its start; override with --quoting)",
            "3 columns: source 'src', translation 'mt'",
            "languages: et -> en from --lp",
        )
    with open_table(path, lp="et-en", quoting=Quoting.CSV) as table:
        assert table.said[0] == "read as CSV-quoted TSV (--quoting)"


def test_a_table_without_a_header_is_read_by_number_and_gets_none(tmp_path: Path) -> None:
    path = write(tmp_path, "7\tHello\tTere\n8\tyes\tjah\n")
    found = items(path, fields="3,2")
    assert [item.row for item in found] == [
        Row.translation("Tere", "Hello", "et", "en"),
        Row.translation("jah", "yes", "et", "en"),
    ]
    assert found[0].place.endswith(":1")
    assert output(path, fields="3,2") == b"7\tHello\tTere\t12.3457\tok\n8\tyes\tjah\t12.3457\tok\n"


def test_a_faulty_first_row_of_a_table_without_a_header_makes_no_other_row_faulty(tmp_path: Path) -> None:
    found = items(write(tmp_path, "7\tHel\tlo\tTere\n8\tyes\tjah\n9\tno\tei\n"), fields="3,2")
    assert found[0].row.fault is not None
    assert found[0].row.fault.startswith("4 instead of 3 cells")
    assert [item.row for item in found[1:]] == [
        Row.translation("jah", "yes", "et", "en"),
        Row.translation("ei", "no", "et", "en"),
    ]


def test_rows_with_line_breaks_are_read_after_a_faulty_first_row_too(tmp_path: Path) -> None:
    rows = ['7\tHel\tlo\t"Tere"\n', *(f'{n}\t"yes {n}"\tjah\n' for n in range(8, 20)), '20\t"two\nlines"\tkaks\n']
    found = items(write(tmp_path, "".join(rows)), quoting=Quoting.CSV, fields="3,2")
    assert [item.row.fault is None for item in found] == [False, *[True] * 13]
    assert found[-1].row == Row.translation("kaks", "two\nlines", "et", "en")


def test_a_field_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"f\.tsv: rows of 2 cells where --fields asks for column 3"):
        items(write(tmp_path, "a\tb\n"), fields="1,3")


def test_a_header_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"f\.tsv: a header and no rows"):
        items(write(tmp_path, "src\tmt\n"))


def test_a_header_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"f\.tsv:1: not valid UTF-8: byte 0xe9"):
        items(write(tmp_path, b"src\tmt\tr\xe9marque\na\tb\tc\n"))


def test_an_unknown_language_on_the_command_line_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--lp: unknown language 'xx'"):
        items(write(tmp_path, "src\tmt\na\tb\n"), lp="et-xx")


TEXT = Prompt("{text} =")


def test_one_text_a_row_needs_no_languages(tmp_path: Path) -> None:
    path = write(tmp_path, 'id\ttext\tlp\n1\tfive "stars\t\n2\t \txx\n3\n')
    with open_table(path, prompt=TEXT) as table:
        assert table.said[1:] == ("3 columns: text 'text'",)
        assert table.assumed == ()
        found = list(table.items)
    assert [item.row.texts for item in found] == [('five "stars',), (" ",), ()]
    assert [item.row.fault is None for item in found] == [True, True, False]
    assert {(item.row.source_language, item.row.target_language) for item in found} == {("", "")}


def test_languages_that_no_prompt_names_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "text\na\n")
    with (
        pytest.raises(UsageError, match="--lp et-en: the prompt of this bundle names no language; leave --lp out"),
        open_table(path, prompt=TEXT, lp="et-en"),
    ):
        pass


def test_languages_are_detected_for_translations_only(tmp_path: Path) -> None:
    prompt = Prompt("{tl}: {text}")
    path = write(tmp_path, "text\nGood morning\n")
    with open_table(path, prompt=prompt, lp="et-en") as table:
        assert [item.row for item in table.items] == [Row(("Good morning",), "et", "en")]
    with (
        pytest.raises(InputError, match=r"f\.tsv: no languages, which the prompt names; add a column lp, or give them"),
        open_table(path, prompt=prompt),
    ):
        pass


def test_texts_come_in_the_order_of_the_prompt(tmp_path: Path) -> None:
    prompt = Prompt("{claim} given {premise} and {context}")
    path = write(tmp_path, "Premise\tcontext\tclaim\np\tx\tc\n")
    with open_table(path, prompt=prompt) as table:
        assert table.said[1] == "3 columns: claim 'claim', premise 'Premise', context 'context'"
        assert [item.row for item in table.items] == [Row(("c", "p", "x"))]
    with open_table(path, prompt=prompt, fields="1,3,2") as table:
        assert [item.row for item in table.items][1:] == [Row(("p", "c", "x"))]
    with (
        pytest.raises(InputError, match=r"f\.tsv: rows of 3 cells where --fields asks for column 4"),
        open_table(path, prompt=prompt, fields="1,4,2"),
    ):
        pass


@pytest.mark.parametrize("names", ["src_lang", "TGT_LANG", "src_lang\ttarget_lang"])
def test_one_language_column_without_the_other_is_refused_unless_languages_are_told(tmp_path: Path, names: str) -> None:
    path = write(tmp_path, f"source\ttranslation\t{names}\nTere\tHello\tet{chr(9) * names.count(chr(9))}\n")
    with pytest.raises(InputError) as caught:
        items(path, lp=None)
    assert str(caught.value) == (
        f"{path}: column {names.split()[0]!r} and none with the other language; call the two src_lang and tgt_lang, "
        "or give both languages, as --lp et-en"
    )
    assert [item.row.pair for item in items(path)] == ["et-en"]
