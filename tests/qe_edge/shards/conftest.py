"""Folders of small tables of every kind, and the command that scores them with a real graph."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from tests.qe_edge.conftest import write_counting_bundle

RUN = """
import sys
import qe_edge.scoring.scorer as scorer, qe_edge.table.output as output
output.CHECKPOINT_ROWS = scorer.WINDOW = 64  # more checkpoints than usual, so that short tables have some
from qe_edge.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A score is the number of tokens of the prompt."""
    return write_counting_bundle(tmp_path_factory.mktemp("bundle") / "counting")


def rows(count: int, seed: int) -> list[tuple[str, str]]:
    """Sources and translations of a few words; some have no words."""
    numbers = random.Random(seed)
    return [
        (" ".join(f"w{numbers.randrange(1000)}" for _ in range(numbers.randrange(4))), f"t{row}")
        for row in range(count)
    ]


def write_tsv(path: Path, count: int, seed: int = 0) -> None:
    lines = [f"{row}\t{source}\t{translation}\n" for row, (source, translation) in enumerate(rows(count, seed))]
    path.write_text("".join(["id\tsource\ttranslation\n", *lines]))


def write_folder(folder: Path, count: int) -> Path:
    """Four tables of `count` rows: two of TSV, one of JSONL in a folder of its own, one of Parquet."""
    (folder / "deeper").mkdir(parents=True)
    for seed, name in enumerate(["a.tsv", "b.tsv"]):
        write_tsv(folder / name, count, seed)
    objects = [json.dumps({"source": source, "mt": translation}) for source, translation in rows(count, 2)]
    (folder / "deeper" / "c.jsonl").write_text("\n".join([*objects, ""]))
    columns = dict(zip(["source", "mt"], map(list, zip(*rows(count, 3), strict=True)), strict=True))
    parquet.write_table(pa.table(columns), folder / "d.parquet", row_group_size=100)
    return folder


def command(folder: Path, target: Path, bundle: Path, *options: str) -> list[str]:
    return [
        *(sys.executable, "-c", RUN, "score", str(folder), "-o", str(target)),
        *("-m", str(bundle), "--lp", "et-en", "--device", "cpu", *options),
    ]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, capture_output=True, text=True, check=False)


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of every file that is not hidden, by its path below the folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in visible(folder)}


def visible(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
