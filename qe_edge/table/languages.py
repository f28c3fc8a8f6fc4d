"""The language pair of a row: told on the command line, written in the table, detected from its first rows, or none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from qe_edge.errors import InputError, UsageError
from qe_edge.languages import parse_pair, resolve
from qe_edge.prompt import Prompt
from qe_edge.table.columns import SOURCE_LANGUAGE_NAMES, TARGET_LANGUAGE_NAMES, Columns, listed
from qe_edge.table.detection import Detected, detect_pair

Codes = tuple[str, str]
"""Codes of source and target language, as et and en; two empty ones where the prompt names no language."""


@dataclass(frozen=True)
class PairRule:
    """Where the language pair of a row comes from: one pair for all rows, or cells of each row."""

    said: tuple[str, ...]
    """for the person who runs it: which languages, and how they were told"""
    fixed: Codes | None
    cells: tuple[int, ...] = ()
    """as Columns.languages"""
    assumed: tuple[str, ...] = ()
    """the same, when neither the user nor the input named them"""

    def pair(self, cells: Sequence[str]) -> Codes:
        """The languages of a row. Raises InputError with the value when a cell does not name them."""
        if self.fixed is not None:
            return self.fixed
        if len(self.cells) == 1:
            return parse_pair(cells[self.cells[0]])
        source, target = (resolve(cells[at]) for at in self.cells)
        return source, target


def table_rule(
    lp: str | None,
    prompt: Prompt,
    columns: Columns,
    names: Sequence[str],
    first_rows: Iterable[Sequence[str]],
    name: str,
) -> PairRule:
    """Where the languages of a table come from: `--lp`, its columns, or its first rows.

    names: of the columns; first_rows: cells of the rows that languages may be detected from; name: what messages call
    the table. Raises InputError when languages are needed and cannot be known, or only one of the two has a column, and
    UsageError for a bad `lp`.
    """
    if not prompt.uses_languages:
        return unused(lp)
    if lp is not None:
        return told(lp, columns.overridden)
    if columns.languages:
        return written(columns.languages, [names[at] for at in columns.languages])
    if columns.lone_language:
        raise InputError(
            f"{name}: column {columns.lone_language!r} and none with the other language; call the two "
            f"{SOURCE_LANGUAGE_NAMES[0]} and {TARGET_LANGUAGE_NAMES[0]}, or give both languages, as --lp et-en"
        )
    if not prompt.is_translation:
        raise InputError(f"{name}: no languages, which the prompt names; add a column lp, or give them, as --lp et-en")
    source, translation = columns.texts
    return detected(detect_pair(((cells[source], cells[translation]) for cells in first_rows), name))


def told(lp: str, ignored: Sequence[str] = ()) -> PairRule:
    """The pair of `--lp`; it wins over columns of the table, here `ignored`. Raises UsageError for a bad value."""
    try:
        source, target = parse_pair(lp)
    except InputError as error:
        raise UsageError(f"--lp: {error}") from None
    aside = f", which overrides column {listed(ignored, ' and ')}" if ignored else ""
    return PairRule((f"languages: {source} -> {target} from --lp{aside}",), (source, target))


def written(cells: tuple[int, ...], names: Sequence[str]) -> PairRule:
    """The pair that each row names in its own cells."""
    return PairRule((f"languages: column {' and '.join(map(repr, names))} of each row",), None, cells)


def unused(lp: str | None) -> PairRule:
    """No languages, for a prompt that names none. Raises UsageError when the user gives them."""
    if lp is not None:
        raise UsageError(f"--lp {lp}: the prompt of this bundle names no language; leave --lp out")
    return PairRule((), ("", ""))


def detected(found: Detected) -> PairRule:
    """The pair that the first rows voted for."""
    assumed = (
        f"languages detected: {found.source} -> {found.target} from {found.rows} rows "
        f"({100 * found.agreement:.0f} % agree); override with --lp"
    )
    return PairRule((), (found.source, found.target), assumed=(assumed,))
