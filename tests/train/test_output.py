"""A report that could not be written is refused before anything is measured."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest

from qe_edge.errors import OutputError
from qe_edge_train.allocation.command import allocate
from qe_edge_train.output import check_output, json_text
from qe_edge_train.probe.command import probe


@pytest.mark.parametrize("below", ["", "new", "new/deeper"])
def test_commands_refuse_a_file_for_a_folder_before_they_read_anything(tmp_path: Path, below: str) -> None:
    file = tmp_path / "report"
    file.write_text("mine")
    expected = "report is not a folder; give another -o"

    # neither the recipe nor the base exists: read first, they would be what is complained about
    with pytest.raises(OutputError, match=expected):
        probe(tmp_path / "no-recipe.toml", file / below, device="cpu")
    with pytest.raises(OutputError, match=expected):
        allocate(str(tmp_path / "no-base"), file / below)

    assert file.read_text() == "mine"


def test_commands_refuse_a_folder_that_allows_no_new_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locked = tmp_path / "locked"
    locked.mkdir()
    granted = os.access
    # a mode would not lock out root, as whom tests run in containers
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != locked and granted(path, mode))

    for folder in (locked, locked / "new"):
        with pytest.raises(OutputError, match="locked allows no new files; give another -o"):
            probe(tmp_path / "no-recipe.toml", folder, device="cpu")
        with pytest.raises(OutputError, match="locked allows no new files; give another -o"):
            allocate(str(tmp_path / "no-base"), folder)


def test_a_folder_that_can_be_made_or_has_no_report_is_let_through_and_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    check_output(Path("new/deeper"), "probe.json")
    check_output(tmp_path, "probe.json")

    assert list(tmp_path.iterdir()) == []


def test_a_link_to_nowhere_is_not_a_folder(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")

    with pytest.raises(OutputError, match="link is not a folder"):
        check_output(tmp_path / "link", "probe.json")


def test_undefined_numbers_are_null_at_any_depth() -> None:
    text = json_text({"a": math.nan, "b": [{"c": (1.5, math.nan)}], "d": None, "e": "nan"})

    assert json.loads(text, parse_constant=pytest.fail) == {"a": None, "b": [{"c": [1.5, None]}], "d": None, "e": "nan"}
