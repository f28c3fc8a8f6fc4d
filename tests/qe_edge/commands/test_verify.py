"""`qe-edge verify`: a line for every check, or the one error."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qe_edge.bundle import open_bundle
from qe_edge.cli import main


def test_every_check_that_holds_is_a_line(counting_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(counting_bundle)]) == 0

    digest = open_bundle(counting_bundle).digest
    assert capsys.readouterr().out.splitlines() == [
        f"tiny@{digest}",
        "ok  bundle.json     format version 1, all fields there and within their bounds",
        "ok  files           model.onnx, model.onnx.data, tokenizer.json: plain files with the recorded sha256",
        "ok  model.onnx      7 nodes of 4 operators, 2 constants, 0 bytes of weights",
        "ok  tokenizer.json  WordLevel with 1 tokens and 0 added ones; parts: WhitespaceSplit",
    ]


def test_json_has_the_same_checks(counting_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(counting_bundle), "--json"]) == 0

    content = json.loads(capsys.readouterr().out)
    assert content["folder"] == str(counting_bundle)
    assert content["bundle"] == f"tiny@{open_bundle(counting_bundle).digest}"
    assert [check["subject"] for check in content["checks"]] == ["bundle.json", "files", "model.onnx", "tokenizer.json"]
    assert content["checks"][2]["found"].startswith("7 nodes of 4 operators")


def test_the_embedded_bundle_is_verified_without_an_argument(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify"]) == 0
    assert capsys.readouterr().out.startswith("smollm2-135m-mlqe@")


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_a_check_that_fails_is_one_line_and_exit_code_6(
    counting_bundle: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    (counting_bundle / "tokenizer.json").write_text("another")

    assert main(["verify", str(counting_bundle), *arguments]) == 6
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"qe-edge: error: {counting_bundle}/tokenizer.json: sha256 ")
    assert captured.err.count("\n") == 1
