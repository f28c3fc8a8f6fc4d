"""Training and dev rows: several tables of any language pairs, read by the runtime's own table reader."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from qe_edge.bundle import file_sha256
from qe_edge.errors import InputError
from qe_edge.languages import english_name
from qe_edge.prompt import Prompt
from qe_edge.table.columns import accepted_names
from qe_edge.table.table import open_table
from qe_edge.tokens import Pair
from qe_edge_train.recipe import DataFile

ALL = "all"
"""stands for the language pair of every row where the prompt names no language"""


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
    files: Sequence[DataFile], column: str, folder: Path, seed: int, prompt: Prompt
) -> tuple[list[Example], list[FileFacts]]:
    """Read tables relative to `folder`; rows that repeat pair and texts, and rows with an empty text, are left out.

    column: name of the column with the score; prompt: its text fields are the columns read.
    Raises InputError with file, line and value for rows that cannot be read and for scores that are not numbers, and
    when the score would be one of the texts.
    """
    texts = {name.casefold() for field in prompt.fields for name in accepted_names(field)}
    if column.strip().casefold() in texts:
        raise InputError(f"[target] column = {column!r} is also a text of the prompt; learn another column")
    examples: list[Example] = []
    facts: list[FileFacts] = []
    seen: set[tuple[str, ...]] = set()
    for file in files:
        path = folder / file.path
        whole, quoting = _read(path, file.lp, column, prompt)
        if file.first_row > len(whole):
            raise InputError(f"{path}: has {len(whole)} rows, first_row = {file.first_row}; lower it")
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


def _read(path: Path, lp: str, column: str, prompt: Prompt) -> tuple[list[Example], str]:
    names: dict[str, Pair] = {ALL: ("", "")}
    examples: list[Example] = []
    if lp and not prompt.uses_languages:
        raise InputError(
            f"{path}: lp = {lp!r}, and the prompt names no language; remove lp from its table in the recipe"
        )
    with open_table(str(path), prompt=prompt, lp=lp or None) as table:
        if table.assumed:  # a guess is good enough for scoring, not for training
            raise InputError(f"{path}: no language pair is given; add lp to its table in the recipe, or a column lp")
        if column not in table.columns:
            raise InputError(f"{path}:1: no column `{column}`; columns are {', '.join(table.columns)}")
        at = list(table.columns).index(column)
        for item in table.items:
            row = item.row
            if row.fault is not None:
                raise InputError(f"{item.place}: {row.fault}")
            text = item.cells[at]
            score = _number(text)
            if score is None:
                raise InputError(f"{item.place}: column `{column}` holds {text!r}, not a finite number")
            pair = row.pair if prompt.uses_languages else ALL
            if pair not in names:
                names[pair] = (english_name(row.source_language), english_name(row.target_language))
            examples.append(Example(pair, names[pair], row.texts, score))
        return examples, table.quoting


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
