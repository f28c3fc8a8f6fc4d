"""A file that does not stay what it was while it is read is refused at the end, with what happened to it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from qe_edge.errors import InputError
from qe_edge.table.inputs import file_facts, unchanged


def shorter(path: Path) -> None:
    os.truncate(path, 10)


def longer(path: Path) -> None:
    with path.open("a") as stream:
        stream.write("c\td\n")


def replaced(path: Path) -> None:
    new = path.with_name("new")
    new.write_text(path.read_text())
    os.utime(new, ns=(0, 0))
    new.replace(path)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "in.tsv"
    path.write_text("source\tmt\na\tb\n")
    return path


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (shorter, "14 bytes then, 10 now"),
        (longer, "14 bytes then, 18 now"),
        (replaced, "it was written again"),
        (Path.unlink, "it is gone (No such file or directory)"),
    ],
)
def test_a_file_that_changes_is_refused(table: Path, change: Callable[[Path], None], said: str) -> None:
    with pytest.raises(InputError) as caught, unchanged(file_facts([str(table)])):
        change(table)
    assert str(caught.value) == (
        f"{table}: changed while it was read: {said}; score it anew once nothing writes it (with -o: --restart)"
    )


def test_files_that_stay_are_accepted_and_a_name_counts_by_its_file(table: Path) -> None:
    link = table.with_name("link.tsv")
    link.symlink_to(table)
    facts = file_facts([str(table), str(link)])
    assert facts[0] == facts[1]
    with unchanged(facts):
        table.read_bytes()


def test_two_files_that_no_longer_fit_are_blamed_only_when_one_has_changed(table: Path) -> None:
    facts = file_facts([str(table)])
    with pytest.raises(ValueError, match="argument 2 is shorter"), unchanged(facts):
        list(zip("ab", "a", strict=True))
    longer(table)
    with pytest.raises(InputError, match="changed while it was read"), unchanged(facts):
        list(zip("ab", "a", strict=True))
