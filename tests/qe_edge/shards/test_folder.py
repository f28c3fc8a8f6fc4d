"""What a folder's shards are, and which folders are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from qe_edge.errors import InputError, OutputError
from qe_edge.shards.folder import find_shards


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
