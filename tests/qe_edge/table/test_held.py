"""What is held of a table while it is scored: so many characters, whatever its rows are like."""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest

from qe_edge import Scorer
from qe_edge.prompt import ALOPE_PROMPT
from qe_edge.table.formats import open_any
from qe_edge.table.items import Input, Item
from qe_edge.table.output import Output
from qe_edge.table.parallel import open_parallel
from qe_edge.table.report import Report
from qe_edge.table.stream import OnTruncate, score_input

LONG = 100_000
ROWS = 100
TEXT = "The quick brown fox jumps over the lazy dog. "
TEXTS = (
    TEXT * (LONG // 2 // len(TEXT)),
    "Der schnelle braune Fuchs springt über den faulen Hund. " * (LONG // 2 // 56),
)


def opened(path: Path, lp: str | None) -> AbstractContextManager[Input]:
    return open_any(str(path), prompt=ALOPE_PROMPT, lp=lp, quoting="auto", fields=None)


def written(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


TABLES = {
    "too many cells": ("f.tsv", "src\tmt", "a\tb\t" + "c" * LONG),
    "no UTF-8": ("f.tsv", "src\tmt", "\udcff\t" + "c" * LONG),
    "a column that is not read": ("f.tsv", "src\tmt\tnote", "a\tb\t" + "c" * LONG),
    "rows made as wide as the header": ("f.tsv", "src\tmt" + "\t" * LONG, "a"),
    "no JSON": ("f.jsonl", '{"src": "a", "mt": "b"}', "c" * LONG),
    "a field that is not read": (
        "f.jsonl",
        '{"src": "a", "mt": "b"}',
        f'{{"src": "a", "mt": "b", "c": "{"c" * LONG}"}}',
    ),
}
"""name, first line and the line that is repeated"""


@pytest.mark.parametrize("table", TABLES.values(), ids=list(TABLES))
def test_rows_do_not_pile_up_whatever_makes_them_long(
    tmp_path: Path, counting_bundle: Path, table: tuple[str, str, str]
) -> None:
    name, first, line = table
    path = tmp_path / name
    path.write_bytes("\n".join([first, *[line] * ROWS]).encode("utf-8", "surrogateescape"))
    read = done = furthest = 0

    def counted(items: Iterator[Item]) -> Iterator[Item]:
        nonlocal read, furthest
        for item in items:
            read += 1
            furthest = max(furthest, read - done)
            yield item

    class Counting(Output):
        def write(self, text: str) -> None:
            nonlocal done
            done += 1

    with opened(path, "et-en") as source, Scorer.load(counting_bundle, device="cpu") as scorer:
        items = counted(source.items)
        report = Report(io.StringIO(), quiet=True)
        score_input(replace(source, items=items), scorer, Counting(io.BytesIO(), "out"), OnTruncate.SCORE, report)

    assert read >= ROWS
    assert furthest <= 2 * (4_200_000 // LONG + 1)


def tsv(folder: Path, lp: str | None) -> AbstractContextManager[Input]:
    return opened(written(folder / "f.tsv", "src\tmt", *["\t".join(TEXTS)] * ROWS), lp)


def tsv_without_header(folder: Path, lp: str | None) -> AbstractContextManager[Input]:
    path = written(folder / "f.tsv", *["\t".join(TEXTS)] * ROWS)
    return open_any(str(path), prompt=ALOPE_PROMPT, lp=lp, quoting="auto", fields="1,2")


def jsonl(folder: Path, lp: str | None) -> AbstractContextManager[Input]:
    return opened(written(folder / "f.jsonl", *[f'{{"src": "{TEXTS[0]}", "mt": "{TEXTS[1]}"}}'] * ROWS), lp)


def parquet(folder: Path, lp: str | None) -> AbstractContextManager[Input]:
    pa, files = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    files.write_table(pa.table({"src": [TEXTS[0]] * ROWS, "mt": [TEXTS[1]] * ROWS}), folder / "f.parquet")
    return opened(folder / "f.parquet", lp)


def parallel(folder: Path, lp: str | None) -> AbstractContextManager[Input]:
    paths = [written(folder / f"{number}.txt", *[text] * ROWS) for number, text in enumerate(TEXTS)]
    return open_parallel(*map(str, paths), lp=lp)


Kind = Callable[[Path, str | None], AbstractContextManager[Input]]
KINDS: list[Kind] = [tsv, tsv_without_header, jsonl, parquet, parallel]


@pytest.mark.parametrize("kind", KINDS)
def test_languages_are_detected_from_fewer_rows_where_these_are_long(tmp_path: Path, kind: Kind) -> None:
    with kind(tmp_path, None) as source:
        (assumed,) = source.assumed
        assert "languages detected: en -> de from 4" in assumed  # of 100 kB: 42 or 43
        assert sum(1 for _ in source.items) == ROWS


@pytest.mark.parametrize("kind", KINDS)
def test_first_rows_are_held_no_longer_than_others(tmp_path: Path, kind: Kind) -> None:
    tracemalloc.start()
    try:
        with kind(tmp_path, "en-de") as source:
            before, _ = tracemalloc.get_traced_memory()
            for _ in range(ROWS - 1):
                next(source.items)
            after, _ = tracemalloc.get_traced_memory()
            assert after < before - 2_000_000  # a batch of Parquet is 3.2 MB
    finally:
        tracemalloc.stop()


def test_a_row_that_is_longer_than_all_that_is_held_is_a_row(tmp_path: Path) -> None:
    text = TEXT * 100_000
    path = written(tmp_path / "f.tsv", "src\tmt", *[f"{text}\tb"] * 3)

    with opened(path, "et-en") as source:
        assert [item.row.texts for item in source.items] == [(text, "b")] * 3
