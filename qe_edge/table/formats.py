"""Kinds of tables by the ends of their names, and opening one of any kind."""

from __future__ import annotations

from contextlib import AbstractContextManager
from enum import StrEnum
from pathlib import Path

from qe_edge.errors import UsageError
from qe_edge.prompt import Prompt
from qe_edge.table.items import Input
from qe_edge.table.jsonl import open_jsonl
from qe_edge.table.parquet import open_parquet
from qe_edge.table.paths import is_special, open_file
from qe_edge.table.quoting import Quoting
from qe_edge.table.table import open_table
from qe_edge.table.text import STDIN


class Format(StrEnum):
    """How a table is written."""

    TSV = "TSV"
    JSONL = "JSONL"
    PARQUET = "Parquet"


SUFFIXES = {
    ".tsv": Format.TSV,
    ".jsonl": Format.JSONL,
    ".ndjson": Format.JSONL,
    ".parquet": Format.PARQUET,
}


COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".zip")
"""ends of names that promise what is not written"""


def format_of(path: str | Path) -> Format:
    """By the end of the name, in any case; TSV where it says nothing."""
    return SUFFIXES.get(Path(path).suffix.lower(), Format.TSV)


def open_any(
    path: str, *, prompt: Prompt, lp: str | None, quoting: str, fields: str | None
) -> AbstractContextManager[Input]:
    """Open a table of any kind. quoting: auto, none or csv; the rest, and what is raised, as its own `open_...`.

    Raises UsageError for `quoting` and `fields` with a table that is not TSV.
    """
    kind = format_of(path)
    if kind is Format.TSV:
        told = None if quoting == "auto" else Quoting(quoting)
        return open_table(path, prompt=prompt, lp=lp, quoting=told, fields=fields)
    if fields is not None or quoting != "auto":
        raise UsageError(f"{path}: --fields and --quoting are for TSV; leave them out with {kind}")
    return (open_jsonl if kind is Format.JSONL else open_parquet)(path, prompt=prompt, lp=lp)


def check_output(path: str | None, output: str | None) -> None:
    """Refuse what scores cannot be written to: a name of another kind, and for Parquet all that is no file.

    path: of the table; None for two aligned text files. Raises UsageError.
    """
    kind = Format.TSV if path is None else format_of(path)
    streamed = output is None or output == STDIN or is_special(output) or open_file(output) is not None
    if kind is Format.PARQUET and streamed:
        raise UsageError(f"{path}: Parquet can be written to a file only; give one, as -o scored.parquet")
    if output is not None and Path(output).suffix.lower() in COMPRESSED:
        raise UsageError(f"-o {output}: the output is not compressed; give it a name without {Path(output).suffix}")
    if output is not None and SUFFIXES.get(Path(output).suffix.lower(), kind) is not kind:
        if path is None:
            raise UsageError(f"-o {output}: the output is text, a score a line; give it such a name, as scores.txt")
        raise UsageError(f"-o {output}: the output is {kind} as the input is; give it a name of that kind")
