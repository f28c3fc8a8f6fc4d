"""`bundle.json` within its bounds, and the files of a bundle as they should be."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from qe_edge.bundle import PAYLOAD, SPEC_FILE, open_bundle
from tests.qe_edge.verification.conftest import Refused, Rewrite


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("blocks_kept", -1, "`blocks_kept` is -1, which is not from 1 to 1024"),
        ("blocks_kept", 0, "`blocks_kept` is 0, which is not from 1 to 1024"),
        ("blocks_kept", 10**9, "`blocks_kept` is 1000000000, which is not"),
        ("blocks_total", 0, "`blocks_total` is 0, which is not from 1 to 1024"),
        ("kv_heads", 10**30, "`kv_heads` is 1000000000000000000000000000000, which is not from 1 to 1024"),
        ("head_dim", 0, "`head_dim` is 0, which is not from 1 to 4096"),
        ("token_limit", 0, "`token_limit` is 0, which is not from 1 to 131072"),
        ("token_limit", 1 << 40, "`token_limit` is 1099511627776, which is not"),
        ("bos", -1, "`bos` is -1, which is not from 0 to 2147483647"),
        ("taps", [0], "`taps` has 0, which is not a layer of 30 blocks"),
        ("taps", [32], "`taps` has 32, which is not a layer of 30 blocks"),
        ("name", "a" * 20_001, "`name` has a text of 20001 characters, more than 20000"),
        ("name", "tiny\x1b]0;owned\x07", r"`name` has control characters: 'tiny\x1b]0;owned\x07'"),
        ("licence", "MIT\nok", r"`licence` has control characters: 'MIT\nok'"),
        ("data", ["a", "\u202eb"], r"`data` has control characters: '\u202eb'"),
        ("score_scale", "\ud800", r"`score_scale` has control characters: '\ud800'"),
        ("prompt", "{src} {mt}\r", r"`prompt` has control characters: '{src} {mt}\r'"),
        ("metrics", {"a\x07": 1}, r"`metrics` has control characters: 'a\x07'"),
        ("gate", nested(9), "`gate` has more than 8 lists and objects inside each other"),
        ("gate", nested(400), "`gate` has more than 8 lists and objects inside each other"),
        ("gate", {"a": list(map(list, [()] * 10_000))}, "more than 10000 lists and objects"),
        ("files", {}, "`files` must name exactly model.onnx, model.onnx.data, tokenizer.json"),
        ("files", dict.fromkeys([*PAYLOAD, "setup.py"], "0"), "`files` must name exactly"),
        ("files", dict.fromkeys([*PAYLOAD[1:], "../model.onnx"], "0"), "`files` must name exactly"),
        ("files", dict.fromkeys([*PAYLOAD[1:], "/etc/passwd"], "0"), "`files` must name exactly"),
        ("files", dict.fromkeys([*PAYLOAD[1:], "a\\model.onnx"], "0"), "`files` must name exactly"),
        ("precision", "int3\x1b", r"`precision` has control characters: 'int3\x1b'"),
        ("format_version", "9" * 1000, "format version '9999"),
        ("format_version", 2, "format version 2, this qe-edge reads 1"),
    ],
)
def test_a_value_out_of_bounds_is_refused(
    with_record: Rewrite, refused: Refused, field: str, value: Any, expected: str
) -> None:
    line = refused(with_record(**{field: value}))

    assert line.startswith("bundle.json: ")
    assert expected in line


def test_values_at_the_bounds_are_accepted(with_record: Rewrite) -> None:
    bundle = open_bundle(with_record(token_limit=131072, taps=[1, 31], prompt="{src}\n\t{mt}", gate=nested(7)))

    assert bundle.prompt.fields == ("src", "mt")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"[" * 5_000, ("nested too deeply", "not valid JSON")),  # from Python 3.13 on they are read, and have no end
        (b"[" * 100_000, "more than 10000 lists and objects"),
        (b" " * (2 << 20), "larger than 1 MiB"),
        (b'{"name": "\\ud800"', "not valid JSON"),
        (b"\xef\xbb\xbf{}", "not valid JSON"),
        (b"1" * 5000, "not valid JSON"),
        (b"null", "a JSON object is expected"),
        (b'{"gate": {"rows": 1e999}}', "not valid JSON ('1e999' is more than a number can be)"),
        (b'{"gate": {"rows": -Infinity}}', "not valid JSON (-Infinity is not a number)"),
    ],
)
def test_a_record_that_is_no_record_is_refused(
    with_file: Rewrite, refused: Refused, content: bytes, expected: str | tuple[str, ...]
) -> None:
    assert refused(with_file(SPEC_FILE, content)).removeprefix("bundle.json: ").startswith(expected)


def test_a_name_written_twice_is_refused(with_file: Rewrite, refused: Refused, counting_bundle: Path) -> None:
    text = (counting_bundle / SPEC_FILE).read_text(encoding="utf-8")
    twice = json.dumps({"name": "another"})[:-1] + "," + text.lstrip()[1:]
    assert "name 'name' is written twice" in refused(with_file(SPEC_FILE, twice.encode()))


@pytest.mark.parametrize("name", [SPEC_FILE, *PAYLOAD])
def test_a_link_is_not_followed(counting_bundle: Path, tmp_path: Path, refused: Refused, name: str) -> None:
    (counting_bundle / name).rename(tmp_path / name)
    (counting_bundle / name).symlink_to(tmp_path / name)

    assert refused(counting_bundle).startswith(f"{name}: missing or not a plain file; ")


@pytest.mark.parametrize("name", [SPEC_FILE, *PAYLOAD])
def test_a_folder_or_a_pipe_is_refused_without_waiting_for_it(
    counting_bundle: Path, refused: Refused, name: str
) -> None:
    (counting_bundle / name).unlink()
    os.mkfifo(counting_bundle / name)
    assert refused(counting_bundle).startswith(f"{name}: missing or not a plain file; ")

    (counting_bundle / name).unlink()
    (counting_bundle / name).mkdir()
    assert refused(counting_bundle).startswith(f"{name}: missing or not a plain file; ")


@pytest.mark.parametrize("name", PAYLOAD)
def test_a_missing_file_or_one_with_another_hash_is_refused(counting_bundle: Path, refused: Refused, name: str) -> None:
    (counting_bundle / name).write_bytes(b"another")
    assert refused(counting_bundle).startswith(f"{name}: sha256 ")

    (counting_bundle / name).unlink()
    assert refused(counting_bundle).startswith(f"{name}: missing or not a plain file; ")
