"""The rows that are scored, as qe-edge reads them, as a table, as whole prompts and as token ids."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from qe_edge.bundle import Bundle
from qe_edge.errors import InputError
from qe_edge.languages import english_name
from qe_edge.prompt import ALOPE_TEMPLATE
from qe_edge.rows import Row
from qe_edge.table.table import open_table
from qe_edge.tokens import PromptEncoder

PAIRS = ("et-en", "ro-en", "ru-en", "ne-en", "si-en", "en-de", "en-zh")
TESTS = "test20.{}.df.short.tsv"
TINY_ROWS = 6
"""of each pair, in a rehearsal"""


def rows_of_test20(data: Path, most: int | None = None) -> list[Row]:
    """Rows of the seven test20 tables, of each the first `most` (None: all, which makes 7,000).

    Raises InputError for a table that is missing.
    """
    rows: list[Row] = []
    for pair in PAIRS:
        path = data / TESTS.format(pair.replace("-", ""))
        if not path.is_file():
            raise InputError(f"{path}: no such table; give the folder of MLQE-PE with --data")
        with open_table(str(path), lp=pair) as table:
            rows += [item.row for item in table.items][:most]
    return rows


def write_table(path: Path, rows: Sequence[Row]) -> None:
    """The rows as one unquoted table with a column for the language pair."""
    lines = ["lp\toriginal\ttranslation", *("\t".join((row.pair, *row.texts)) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def prompt_text(row: Row) -> str:
    """The whole prompt of a translation, as one gives it to a tokenizer that knows nothing of prefixes."""
    source, translation = row.texts
    names = english_name(row.source_language), english_name(row.target_language)
    return ALOPE_TEMPLATE.format(sl=names[0], tl=names[1], src=source, mt=translation)


def encoder(bundle: Bundle) -> PromptEncoder:
    """Turns the texts of rows into token ids as the bundle reads them."""
    tokenizer = Tokenizer.from_file(str(bundle.tokenizer))
    return PromptEncoder(tokenizer, bundle.prompt, bundle.spec.bos, bundle.spec.token_limit)


def body_tokens(bundle: Bundle, rows: Sequence[Row]) -> tuple[list[int], list[list[int]]]:
    """The prefix of the first row's language pair, and the bodies of all rows."""
    texts = encoder(bundle)
    pairs = [(english_name(row.source_language), english_name(row.target_language)) for row in rows]
    bodies = texts.bodies([(pair, row.texts) for pair, row in zip(pairs, rows, strict=True)])
    return texts.fixed(pairs[0]).prefix, [body.ids for body in bodies]
