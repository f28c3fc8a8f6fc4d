"""An output file appears complete or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from qe_edge.errors import OutputError
from qe_edge.table.output import open_output


def test_a_file_appears_only_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "out.tsv"
    with open_output(str(target), []) as output:
        output.write("a\tb\n")
        output.flush()
        assert not target.exists()
    assert target.read_bytes() == b"a\tb\n"
    assert [path.name for path in tmp_path.iterdir()] == ["out.tsv"]


def test_after_an_error_the_old_file_is_as_it_was_and_nothing_new_is_left(tmp_path: Path) -> None:
    target = tmp_path / "out.tsv"
    target.write_text("old")

    def write_and_fail() -> None:
        with open_output(str(target), []) as output:
            output.write("new")
            raise KeyError("half way")

    with pytest.raises(KeyError, match="half way"):
        write_and_fail()
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out.tsv"]


def test_undecodable_bytes_are_written_as_they_were(tmp_path: Path) -> None:
    target = tmp_path / "out.tsv"
    with open_output(str(target), []) as output:
        output.write(b"Caf\xe9\xff".decode("utf-8", "surrogateescape"))
    assert target.read_bytes() == b"Caf\xe9\xff"


@pytest.mark.parametrize("name", ["input.tsv", "link.tsv", "folder/../input.tsv"])
def test_the_input_is_not_overwritten(tmp_path: Path, name: str) -> None:
    source = tmp_path / "input.tsv"
    source.write_text("src\tmt\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link.tsv").symlink_to(source)
    with pytest.raises(OutputError, match="is the input itself"), open_output(str(tmp_path / name), [str(source)]):
        pass
    assert source.read_text() == "src\tmt\n"


def test_a_link_to_a_file_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "link.tsv").symlink_to(tmp_path / "real.tsv")
    with open_output(str(tmp_path / "link.tsv"), []) as output:
        output.write("a\n")
    assert (tmp_path / "link.tsv").is_symlink()
    assert (tmp_path / "real.tsv").read_text() == "a\n"


def test_what_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path, message in [
        (tmp_path, "is a directory"),
        (tmp_path / "missing" / "out.tsv", "cannot be written"),
        (tmp_path / "file" / "out.tsv", "cannot be written"),
    ]:
        with pytest.raises(OutputError, match=message), open_output(str(path), []):
            pass


def test_a_pipe_is_written_directly(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    with open_output(f"/dev/fd/{writing}", []) as output:
        output.write("a\n")
        output.flush()
        assert os.read(reading, 10) == b"a\n"
    os.close(reading)
    os.close(writing)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_disk_is_an_output_error_and_a_device_is_not_replaced() -> None:
    with pytest.raises(OutputError, match="No space left"), open_output("/dev/full", []) as output:
        output.write("a\n")
    assert Path("/dev/full").is_char_device()
