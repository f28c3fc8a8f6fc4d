"""Training and dev rows: several tables of any language pairs, read by the runtime's own table reader."""

from __future__ import annotations

import difflib
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from qe_edge.bundle import file_sha256
from qe_edge.errors import InputError
from qe_edge.evaluation.reading import parse_number
from qe_edge.languages import english_name
from qe_edge.prompt import Prompt
from qe_edge.table.columns import accepted_names
from qe_edge.table.table import open_table
from qe_edge.tokens import Pair
from qe_edge_train.recipe import DataFile

ALL = "all"
"""stands for the language pair of every row where the prompt names no language"""
LARGEST = 1e18
"""the largest magnitude of a score, far beyond any that is meant; squares of much larger numbers overflow in float32"""
IN_RECIPE = "lp in its table of the recipe"
"""where a user says of which languages a table is"""


@dataclass(frozen=True)
class Example:
    """One row with its score."""

    pair: str
    """language pair, as et-en, or ALL"""
    names: Pair
    """English names of the two languages, as they stand in the prompt; two empty ones where it names none"""
    texts: tuple[str, ...]
    """one for each text field of the prompt"""
    score: float
    """the number to learn"""

    @property
    def key(self) -> tuple[str, ...]:
        """What makes two rows the same to the model, whatever their scores."""
        return self.pair, *self.texts


@dataclass(frozen=True)
class FileFacts:
    """What was read from one table, kept with the run."""

    path: str
    sha256: str
    quoting: str
    rows: int
    """rows in the table, or in the part of it that is used"""
    used: int
    """rows left without duplicates, empty cells and the sample limit"""
    duplicates: int
    empty: int


def load_examples(
    files: Sequence[DataFile], column: str, folder: Path, seed: int, prompt: Prompt, lp_option: str = IN_RECIPE
) -> tuple[list[Example], list[FileFacts]]:
    """Read tables relative to `folder`; rows that repeat pair and texts, and rows with an empty text, are left out.

    column: name of the column with the score; prompt: its text fields are the columns read; lp_option: what messages
    call the place where the language pair of a table is told.
    Raises InputError with file, line and value for rows that cannot be read and for scores that are not numbers, for a
    score column that is not there once, for rows beyond the end of a table, and when the score would be one of the
    texts.
    """
    texts = {name.casefold() for field in prompt.fields for name in accepted_names(field)}
    if column.strip().casefold() in texts:
        raise InputError(f"[target] column = {column!r} is also a text of the prompt; learn another column")
    examples: list[Example] = []
    facts: list[FileFacts] = []
    seen: set[tuple[str, ...]] = set()
    for file in files:
        path = folder / file.path
        whole, quoting = _read(path, file.lp, column, prompt, lp_option)
        for key, row in (("first_row", file.first_row), ("last_row", file.last_row)):
            if row > len(whole):
                raise InputError(f"{path}: has {len(whole)} rows, {key} = {row}; lower it")
        read = whole[file.first_row - 1 : file.last_row or None]
        kept = [example for example in read if all(text.strip() for text in example.texts)]
        unique: list[Example] = []
        for example in kept:
            if example.key not in seen:
                seen.add(example.key)
                unique.append(example)
        used = unique
        if 0 < file.rows < len(unique):
            used = random.Random(seed).sample(unique, file.rows)
        examples += used
        facts.append(
            FileFacts(
                path=file.path,
                sha256=file_sha256(path),
                quoting=quoting,
                rows=len(read),
                used=len(used),
                duplicates=len(kept) - len(unique),
                empty=len(read) - len(kept),
            )
        )
    return examples, facts


def without(examples: Sequence[Example], others: Sequence[Example]) -> list[Example]:
    """The examples whose pair and texts are not among the others: training rows that are not dev rows."""
    known = {other.key for other in others}
    return [example for example in examples if example.key not in known]


def check_train(rows: Sequence[Example]) -> None:
    """Raise InputError unless there are training rows and their scores differ in float32, in which they are learnt."""
    if not rows:
        raise InputError("no training rows are left without empty, repeated and dev rows; give other [[train]] tables")
    if constant([row.score for row in rows]):
        raise InputError(
            f"{len(rows)} training rows without two different scores (the first is {rows[0].score:g}): nothing to "
            "learn; give other [[train]] tables or another [target] column"
        )


def constant(scores: Sequence[float]) -> bool:
    """Whether all scores are the same in float32."""
    return len(np.unique(np.array(scores, np.float32))) < 2


def check_dev(rows: Sequence[Example]) -> None:
    """Raise InputError unless there are dev rows and those of every pair can be ranked."""
    if not rows:
        raise InputError("no dev rows are left once empty rows are out; give other dev tables")
    for pair in dict.fromkeys(row.pair for row in rows):
        scores = [row.score for row in rows if row.pair == pair]
        if len(set(scores)) < 2:
            raise InputError(
                f"dev rows of {pair}: {len(scores)} with one score; a correlation needs two different scores"
            )


def facts_table(facts: Sequence[FileFacts]) -> list[dict[str, object]]:
    """File facts as JSON objects."""
    return [asdict(item) for item in facts]


def _read(path: Path, lp: str, column: str, prompt: Prompt, lp_option: str) -> tuple[list[Example], str]:
    names: dict[str, Pair] = {ALL: ("", "")}
    examples: list[Example] = []
    if lp and not prompt.uses_languages:
        raise InputError(f"{path}: lp = {lp!r}, and the prompt names no language; remove {lp_option}")
    with open_table(str(path), prompt=prompt, lp=lp or None) as table:
        if table.assumed:  # a guess is good enough for scoring, not for training
            raise InputError(f"{path}: no language pair is given; give {lp_option}, or a column lp in the table")
        at = _position(table.columns, column, path)
        for item in table.items:
            row = item.row
            if row.fault is not None:
                raise InputError(f"{item.place}: {row.fault}")
            text = item.cells[at]
            score = parse_number(text)
            if not abs(score) <= LARGEST:
                raise InputError(
                    f"{item.place}: column `{column}` holds {text[:40]!r}, not a finite number up to {LARGEST:g}"
                )
            pair = row.pair if prompt.uses_languages else ALL
            if pair not in names:
                names[pair] = (english_name(row.source_language), english_name(row.target_language))
            examples.append(Example(pair, names[pair], row.texts, score))
        return examples, table.quoting


def _position(columns: Sequence[str], column: str, path: Path) -> int:
    """Where the score column stands, as it is written."""
    found = columns.count(column)
    if found > 1:
        raise InputError(f"{path}:1: {found} columns are called `{column}`; rename all but one")
    if not found:
        names = {name.strip().casefold(): name for name in columns}
        near = names[difflib.get_close_matches(column.strip().casefold(), names, n=1, cutoff=0.0)[0]]
        raise InputError(
            f"{path}:1: no column `{column}`; columns are {', '.join(columns)}; the nearest to [target] column is "
            f"`{near}`"
        )
    return columns.index(column)
