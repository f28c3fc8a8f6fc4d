"""A report that could not be written is refused before anything is measured."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest

from qe_edge.errors import OutputError
from qe_edge_train.allocation.command import allocate
from qe_edge_train.output import check_new_folder, check_output, json_text, new_folder
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


@pytest.mark.parametrize("name", ["probe.csv", "allocation.csv", "notes.txt", ".hidden"])
def test_commands_refuse_a_folder_that_holds_anything_before_they_read_anything(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / name).write_text("mine")
    expected = rf"mine: holds other files \({name}\); give a new or empty folder with -o"

    with pytest.raises(OutputError, match=expected):
        probe(tmp_path / "no-recipe.toml", folder, device="cpu")
    with pytest.raises(OutputError, match=expected):
        allocate(str(tmp_path / "no-base"), folder)

    assert [(path.name, path.read_text()) for path in folder.iterdir()] == [(name, "mine")]


def test_a_folder_that_cannot_be_listed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(OutputError, match="cannot be read: Permission denied; give another -o"):
        check_output(tmp_path)


def test_a_new_or_empty_folder_is_let_through_and_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    check_output(Path("new/deeper"))
    check_output(tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_a_link_to_nowhere_is_not_a_folder(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")

    with pytest.raises(OutputError, match="link is not a folder"):
        check_output(tmp_path / "link")


def test_a_new_folder_is_there_complete_or_not_at_all(tmp_path: Path) -> None:
    out = tmp_path / "deeper" / "out"
    with new_folder(out) as part:
        (part / "one").write_text("1")
        assert not out.exists()
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    assert (out / "one").read_text() == "1"
    assert out.stat().st_mode & 0o777 == 0o755

    def fill(folder: Path) -> None:
        with new_folder(folder) as part:
            (part / "one").write_text("1")
            Path("/dev/full").write_text("1")

    with pytest.raises(OutputError, match=r"second: cannot be written: No space left on device; make room or give"):
        fill(tmp_path / "second")
    assert [path.name for path in tmp_path.iterdir()] == ["deeper"]


def test_a_new_folder_needs_room_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_new_folder(tmp_path / "new" / "deeper")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="file is not a folder; give another -o"):
        check_new_folder(tmp_path / "file" / "out")

    granted = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path and granted(path, mode))
    monkeypatch.chdir(tmp_path)
    for folder in (Path("out"), tmp_path / "out", tmp_path / "new" / "deeper"):
        with pytest.raises(OutputError, match="allows no new files; give another -o"):
            check_new_folder(folder)


def test_undefined_numbers_are_null_at_any_depth() -> None:
    text = json_text({"a": math.nan, "b": [{"c": (1.5, math.nan)}], "d": None, "e": "nan"})

    assert json.loads(text, parse_constant=pytest.fail) == {"a": None, "b": [{"c": [1.5, None]}], "d": None, "e": "nan"}
