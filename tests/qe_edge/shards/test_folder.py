"""What a folder's shards are, and which folders are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from qe_edge.errors import InputError, OutputError
from qe_edge.shards.folder import find_shards, left_out


def test_tables_of_all_kinds_and_depths_are_shards_in_order_and_nothing_else(tmp_path: Path) -> None:
    names = ["b.tsv", "a.jsonl", "lp=et-en/part-1.PARQUET", "c.ndjson"]
    others = ["notes.txt", ".hidden.tsv", "_temporary/x.tsv", "_SUCCESS", ".git/y.tsv"]
    for name in [*names, *others]:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_text("")
    (tmp_path / "in" / "folder.tsv").mkdir()
    shards = find_shards(tmp_path / "in", tmp_path / "out")
    assert [shard.name for shard in shards] == sorted(names)
    assert shards[-1].source == tmp_path / "in" / "lp=et-en" / "part-1.PARQUET"
    assert shards[-1].target == tmp_path / "out" / "lp=et-en" / "part-1.PARQUET"
    assert left_out(tmp_path / "in") == ["notes.txt"]


def test_a_folder_without_tables_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(InputError, match=r"in: no table in it; give a folder with \.tsv, "):
        find_shards(tmp_path / "in", tmp_path / "out")


@pytest.mark.parametrize("target", ["in", "in/out", "in/../in"])
def test_outputs_may_not_lie_among_the_inputs(tmp_path: Path, target: str) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(OutputError, match="lies in the folder that is scored"):
        find_shards(tmp_path / "in", tmp_path / target)


def test_the_output_may_not_be_a_file(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").write_text("")
    with pytest.raises(OutputError, match="is a file; give a folder"):
        find_shards(tmp_path / "in", tmp_path / "out")


@pytest.mark.parametrize("target", [".", "linked"], ids=["the folder above", "a link"])
def test_no_output_may_be_one_of_the_tables(tmp_path: Path, target: str) -> None:
    (tmp_path / "in" / "in").mkdir(parents=True)
    (tmp_path / "in" / "x.tsv").write_text("first")
    (tmp_path / "in" / "in" / "x.tsv").write_text("second")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "in").symlink_to(tmp_path / "in")
    with pytest.raises(OutputError, match=r"in/x\.tsv: lies in a folder that is scored; give another -o"):
        find_shards(tmp_path / "in", tmp_path / target)


@pytest.mark.parametrize("hard", [False, True], ids=["link", "hard link"])
def test_no_output_may_be_linked_to_a_table(tmp_path: Path, hard: bool) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.tsv").write_text("a table")
    (tmp_path / "in" / "b.tsv").write_text("another")
    if hard:
        (tmp_path / "in" / "a.tsv").hardlink_to(tmp_path / "out" / "a.tsv")
    else:
        (tmp_path / "in" / "a.tsv").symlink_to(tmp_path / "out" / "a.tsv")
    with pytest.raises(OutputError, match=r"out/a\.tsv: is the same file as .*in/a\.tsv, which is scored"):
        find_shards(tmp_path / "in", tmp_path / "out")


def test_links_to_folders_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    (tmp_path / "in" / "deeper").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "in" / "deeper" / "a.tsv").write_text("")
    (tmp_path / "elsewhere" / "b.tsv").write_text("")
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "deeper" / "circle").symlink_to(tmp_path / "in")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "in" / "deeper")
    names = [shard.name for shard in find_shards(tmp_path / "in", tmp_path / "out")]
    assert names == ["deeper/a.tsv", "linked/b.tsv", "linked/back/a.tsv"]


def test_an_output_folder_that_a_link_leads_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.tsv").write_text("")
    (tmp_path / "out").mkdir()
    (tmp_path / "in" / "results").symlink_to(tmp_path / "out")
    with pytest.raises(OutputError, match=r"out/a\.tsv: lies in a folder that is scored"):
        find_shards(tmp_path / "in", tmp_path / "out")
