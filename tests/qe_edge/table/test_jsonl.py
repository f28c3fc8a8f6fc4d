"""JSONL in, the same JSONL with two more fields out; a line that cannot be scored keeps its place and says why."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qe_edge.errors import InputError
from qe_edge.prompt import Prompt
from qe_edge.rows import Score, Status
from qe_edge.table.items import Item
from qe_edge.table.jsonl import open_jsonl

GOOD = '{"source": "Tere", "mt": "Hello"}'
SCORE = Score(61.23456, Status.OK)


def items(path: Path, content: bytes, lp: str | None = "et-en") -> list[Item]:
    path.write_bytes(content)
    with open_jsonl(str(path), lp=lp) as source:
        return list(source.items)


def written(path: Path, content: bytes, score: Score) -> list[str]:
    path.write_bytes(content)
    with open_jsonl(str(path), lp="et-en") as source:
        return [source.render(item, score) for item in source.items]


@pytest.fixture
def fields_of_the_first_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which fields there are is learnt from one line, so that later ones may hold anything."""
    monkeypatch.setattr("qe_edge.table.first_rows.DETECTION_ROWS", 1)


def faults(path: Path, *lines: str) -> list[str | None]:
    """Of the lines after a good one, which says what the fields are."""
    content = "\n".join([GOOD, *lines]).encode("utf-8", "surrogateescape")
    return [item.row.fault for item in items(path, content)[1:]]


def test_a_message_names_a_field_of_endless_name_by_its_ends(tmp_path: Path) -> None:
    content = f'{{"src": "a", "mt{" " * 100_000}": "b"}}\n{{"src": "a"}}\n'.encode()

    fault = items(tmp_path / "in.jsonl", content)[1].row.fault

    assert fault is not None
    assert fault.startswith("no field 'mt ")
    assert len(fault) < 100


def test_fields_are_found_as_columns_are_and_others_are_no_matter(tmp_path: Path) -> None:
    (item,) = items(tmp_path / "in.jsonl", b'{"id": 7, "SRC": "Tere", "target": "Hello", "x": [1, {"y": null}]}\n')
    assert item.row.texts == ("Tere", "Hello")
    assert item.row.pair == "et-en"
    assert item.place == f"{tmp_path}/in.jsonl:1"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (GOOD, '{"source": "Tere", "mt": "Hello", "qe_score": 61.2346, "qe_status": "ok"}\n'),
        (
            ' {"n":1.10,"source":"\\u0054ere","mt":"x" } ',
            ' {"n":1.10,"source":"\\u0054ere","mt":"x", "qe_score": 61.2346, "qe_status": "ok"}\n',
        ),
    ],
)
def test_the_text_of_a_line_is_kept_up_to_its_closing_brace(tmp_path: Path, line: str, expected: str) -> None:
    assert written(tmp_path / "in.jsonl", line.encode() + b"\n", SCORE) == [expected]


def test_line_ends_and_a_byte_order_mark_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + f"{GOOD}\r\n{GOOD}".encode())
    with open_jsonl(str(path), lp="et-en") as source:
        assert source.header == "\ufeff"
        assert [item.end for item in source.items] == ["\r\n", "\r\n"]


def test_a_row_without_a_score_has_null(tmp_path: Path) -> None:
    (line,) = written(tmp_path / "in.jsonl", GOOD.encode(), Score(None, Status.EMPTY_SOURCE))
    assert json.loads(line) == json.loads(GOOD) | {"qe_score": None, "qe_status": "empty_source"}


@pytest.mark.usefixtures("fields_of_the_first_line")
def test_every_line_of_the_output_is_json_with_both_fields(tmp_path: Path) -> None:
    odd = [b"", b"{}", b"[1]", b'{"mt": "caf\xe9"', b'"a', b"7", b'{"qe_score": 1}', b"[" * 100_000, b"9" * 5000]
    lines = written(tmp_path / "in.jsonl", b"\n".join([GOOD.encode(), *odd]), Score(None, Status.INVALID))
    assert len(lines) == 1 + len(odd)
    objects = [json.loads(line) for line in lines]
    assert all(list(one)[-2:] == ["qe_score", "qe_status"] for one in objects)
    assert objects[2] == {"qe_score": None, "qe_status": "invalid"}
    assert objects[3] == {"qe_line": "[1]", "qe_score": None, "qe_status": "invalid"}
    assert objects[4]["qe_line"].encode("utf-8", "surrogateescape") == odd[3]


def test_null_is_an_empty_cell(tmp_path: Path) -> None:
    (item,) = items(tmp_path / "in.jsonl", b'{"source": null, "mt": "Hello"}')
    assert (item.row.texts, item.row.fault) == (("", "Hello"), None)


@pytest.mark.usefixtures("fields_of_the_first_line")
def test_lines_that_cannot_be_scored_say_why(tmp_path: Path) -> None:
    found = faults(
        tmp_path / "in.jsonl",
        '{"source": "a", "mt": }',
        "[]",
        "",
        '{"source": "a"}',
        '{"source": "a", "mt": 3}',
        '{"source": "a", "mt": ["b"]}',
        '{"source": "a", "mt": "\\ud800"}',
        '{"source": "a", "mt": "\\u0000"}',
        b'{"source": "a", "mt": "caf\xe9"}'.decode("utf-8", "surrogateescape"),
        '{"source": "a", "mt": "b", "qe_status": ""}',
        "[" * 100_000,
    )
    expected = [
        "not JSON: Expecting value at character 23 of ",
        "not a JSON object: '[]'; give one object a line",
        "not JSON: Expecting value at character 1 of ''; mend the line",
        "no field 'mt'; every object needs it",
        "field 'mt' is a number: 3; it must be a string",
        "field 'mt' is an array: ['b']; it must be a string",
        "field 'mt': half a character (\\ud800); mend it",
        "field 'mt': NUL byte after ''; remove it",
        "not valid UTF-8: byte 0xe9 after ",
        "field 'qe_status' is there already; rename it",
        "JSON that is not read here (maximum recursion depth exceeded",
    ]
    for fault, beginning in zip(found, expected, strict=True):
        assert fault is not None
        assert fault.startswith(beginning)


def test_languages_come_from_the_fields_of_each_line(tmp_path: Path) -> None:
    lines = ['{"lp": "et-en", "src": "a", "mt": "b"}', '{"lp": null, "src": "a", "mt": "b"}', '{"src": "a", "mt": "b"}']
    first, null, missing = items(tmp_path / "in.jsonl", "\n".join(lines).encode(), lp=None)
    assert first.row.pair == "et-en"
    assert null.row.fault is not None
    assert missing.row.fault == "no field 'lp'; every object needs it"


def test_language_fields_may_be_anything_where_the_languages_are_told(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    fields = ['"lp": "ro-en"', '"lp": ["et", "en"]', '"lp": 1, "lp": 2', '"LP": null, "src_lang": {}', '"id": 1']
    path.write_text("".join(f'{{"src": "a", "mt": "b", {field}}}\n' for field in fields))
    with open_jsonl(str(path), lp="et-en") as source:
        assert source.said[-1].startswith("languages: et -> en from --lp, which overrides column 'lp'")
        assert [(item.row.fault, item.row.pair) for item in source.items] == [(None, "et-en")] * 5


def test_a_bundle_for_one_text_reads_its_field(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('{"text": "What a film!"}\n')
    with open_jsonl(str(path), prompt=Prompt("{text} .")) as source:
        assert [item.row.texts for item in source.items] == [("What a film!",)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b'{"src": "a"}', "no translation column among 'src'; name it translation, mt, target, hypothesis or hyp$"),
        (b"source\tmt\nTere\tHello\n", "no JSON object with fields in the first 2 lines"),
        (b'{"src": "a", "source": "b", "mt": "c"}', "could each be the source; rename all but one"),
        (b'{"src": "a", "mt": "c"}\n{"source": "a", "mt": "c"}', "columns 'src' and 'source' could each be the source"),
        (b'{"src": "a", "mt": "c", "qe_score": 1}', "column 'qe_score' is there already"),
        (b'{"src": "a", "mt": "c", "qe_score": 1}\n' * 2 + b"[]\n{}", "column 'qe_score' is there already"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        items(tmp_path / "in.jsonl", content)


def test_a_few_odd_objects_do_not_decide_how_the_others_are_read(tmp_path: Path) -> None:
    odd = [
        '{"source": "a", "mt": "b", "qe_score": 1}',
        '{"Source": "a", "mt": "b"}',
        '{"src": "x", "source": "a", "mt": "b"}',
    ]
    content = "\n".join([odd[0], GOOD, *odd[1:], GOOD, GOOD]).encode()
    found = items(tmp_path / "in.jsonl", content)
    assert [item.row.fault for item in found] == [
        "field 'qe_score' is there already; rename it",
        None,
        "no field 'source'; every object needs it",
        None,
        None,
        None,
    ]
    assert found[3].row.texts == ("a", "b")


def test_a_field_that_is_read_and_there_twice_makes_its_line_invalid(tmp_path: Path) -> None:
    found = faults(
        tmp_path / "in.jsonl",
        '{"source": "Tere", "source": "Kass", "mt": "The cat"}',
        '{"source": "Tere", "\\u006dt": "The", "mt": "cat"}',
        '{"id": 1, "source": "Tere", "mt": "The cat", "id": 2, "more": {"mt": 1, "mt": 2}}',
        '{"source": {"a": 1, "a": 2}, "mt": "The cat"}',
    )
    assert found == [
        "field 'source' is there more than once; leave one",
        "field 'mt' is there more than once; leave one",
        None,
        "field 'source' is an object: {'a': 2}; it must be a string",
    ]


def test_one_language_field_without_the_other_is_refused(tmp_path: Path) -> None:
    content = b'{"source": "Tere", "mt": "Hello", "Tgt_Lang": "en"}\n'
    with pytest.raises(InputError, match="column 'Tgt_Lang' and none with the other language; call the two src_lang"):
        items(tmp_path / "in.jsonl", content, lp=None)
    (item,) = items(tmp_path / "in.jsonl", content)
    assert item.row.pair == "et-en"
