"""A journal speaks of one run and of no other, and says exactly how far it came."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from qe_edge.errors import InputError
from qe_edge.rows import Row, Status
from qe_edge.table.inputs import file_facts
from qe_edge.table.items import Item
from qe_edge.table.journal import Identity, Journal, Progress, RowHash

PROGRESS = Progress(2048, 70_000, "ab" * 32, Counter({Status.OK: 2000, Status.TRUNCATED: 48}))


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "in.tsv"
    path.write_text("src\tmt\na\tb\n")
    return path


def identity(table: Path, **options: Any) -> Identity:
    return Identity(file_facts([str(table)]), "scorer 1", {"lp": "et-en", **options})


def journal(table: Path, now: Identity) -> Journal:
    return Journal(table.with_name(".out.journal"), now, "out.tsv")


def test_what_was_recorded_is_read_again(table: Path) -> None:
    assert journal(table, identity(table)).progress == Progress()
    journal(table, identity(table)).record(PROGRESS)
    assert journal(table, identity(table)).progress == PROGRESS
    assert sorted(path.name for path in table.parent.iterdir()) == [".out.journal", "in.tsv"]


def changed_size(table: Path) -> Identity:
    table.write_text(table.read_text() + "c\td\n")
    return identity(table)


def changed_time(table: Path) -> Identity:
    stat = table.stat()
    os.utime(table, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    return identity(table)


def other_scorer(table: Path) -> Identity:
    return Identity(file_facts([str(table)]), "scorer 2", {"lp": "et-en"})


def other_option(table: Path) -> Identity:
    return identity(table, lp="ro-en")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (changed_size, '"bytes": 11'),
        (changed_time, "modified_ns"),
        (other_scorer, 'scorer "scorer 1" then, "scorer 2" now'),
        (other_option, 'options {"lp": "et-en"} then, {"lp": "ro-en"} now'),
    ],
)
def test_another_run_is_refused_with_what_is_different_and_what_to_do(table: Path, change: Any, said: str) -> None:
    journal(table, identity(table)).record(PROGRESS)
    with pytest.raises(InputError) as caught:
        journal(table, change(table))
    line = str(caught.value)
    assert line.startswith("out.tsv: an interrupted run lies there that is another one: ")
    assert said in line
    assert line.endswith("use --restart to begin anew, or give another -o")
    assert "\n" not in line


@pytest.mark.parametrize("damage", ["", "[]", "no json", '{"identity": {}}', "4", '{"identity": 3, "progress": {}}'])
def test_a_damaged_journal_is_refused(table: Path, damage: str) -> None:
    table.with_name(".out.journal").write_text(damage)
    with pytest.raises(InputError, match=r"^out\.tsv: "):
        journal(table, identity(table))


@pytest.mark.parametrize(
    "change", [{"rows": -1}, {"rows": "3"}, {"output_bytes": 1.5}, {"read": None}, {"tally": {"bad": 1}}, {"tally": 3}]
)
def test_progress_that_cannot_be_is_refused(table: Path, change: dict[str, Any]) -> None:
    journal(table, identity(table)).record(PROGRESS)
    path = table.with_name(".out.journal")
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"progress": content["progress"] | change}))
    with pytest.raises(InputError, match="the journal of an interrupted run cannot be read; use --restart"):
        journal(table, identity(table))


def test_an_interrupted_record_leaves_the_one_before(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes = journal(table, identity(table))
    notes.record(PROGRESS)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        notes.record(Progress(4096, 140_000, "cd" * 32, Counter({Status.OK: 4096})))
    assert journal(table, identity(table)).progress == PROGRESS


def item(**changes: Any) -> Item:
    row = {"texts": ("a", "b"), "source_language": "et", "target_language": "en", "fault": None} | changes
    return Item(Row(**{name: value for name, value in row.items() if name not in ("text", "end")}), "in.tsv:2", "a\tb")


def test_the_hash_tells_rows_apart_by_all_that_is_read_of_them() -> None:
    rows = [
        item(),
        item(texts=("a", "c")),
        item(texts=("ab", "")),
        item(source_language="ro"),
        item(fault="broken"),
        item(texts=("a", "\udcff")),
    ]
    digests = []
    for row in rows:
        found = RowHash()
        found.add(row)
        digests.append(found.digest)
    assert len(set(digests)) == len(rows)
    both = RowHash()
    both.add(rows[0])
    both.add(rows[1])
    assert both.digest not in digests
