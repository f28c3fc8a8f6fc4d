"""Which cells of a table hold the texts of the prompt and the languages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from reprlib import repr as shortened

from qe_edge.errors import InputError, UsageError
from qe_edge.prompt import Prompt

SOURCE_NAMES = ("source", "src", "original")
TRANSLATION_NAMES = ("translation", "mt", "target", "hypothesis", "hyp")
PAIR_NAMES = ("lp",)
SOURCE_LANGUAGE_NAMES = ("src_lang",)
TARGET_LANGUAGE_NAMES = ("tgt_lang",)
SCORE_COLUMN = "qe_score"
STATUS_COLUMN = "qe_status"
FIELDS_SHOWN = 40
"""characters of a wrong `--fields` that a message repeats"""
NUMBER_DIGITS = 9
"""of a column's number at most; no table is wider"""
OTHER_SIGNS = ",;{["
"""in a header of one cell they say that it is no TSV: CSV with commas or semicolons, or JSON"""
NAMES_SHOWN = 12
"""names that a message lists; the others are counted"""


@dataclass(frozen=True)
class Columns:
    """Positions of cells, from 0."""

    texts: tuple[int, ...]
    """the cell of each text field of the prompt, in its order"""
    languages: tuple[int, ...] = ()
    """one cell with the pair, such as et-en; or two, with the source and the target language; or none"""
    lone_language: str = ""
    """the name of the column with one of the two languages, where there is none with the other"""
    overridden: tuple[str, ...] = ()
    """the names of the columns with languages that are not read, because `--lp` tells them"""


def accepted_names(field: str) -> tuple[str, ...]:
    """Names that a text field's column may have, the usual one first; columns are found in any case."""
    return {"src": SOURCE_NAMES, "mt": TRANSLATION_NAMES}.get(field, (field,))


def usual_names(prompt: Prompt) -> list[str]:
    """What the columns of a prompt's text fields are usually called: source and translation, for translations."""
    return [accepted_names(field)[0] for field in prompt.fields]


def columns_said(names: Sequence[str], prompt: Prompt, columns: Columns) -> str:
    """For the person who runs it, e.g. "8 columns: source 'original', translation 'translation'"."""
    texts = zip(usual_names(prompt), columns.texts, strict=True)
    return f"{len(names)} columns: {', '.join(f'{name} {names[at]!r}' for name, at in texts)}"


def from_header(
    header: Sequence[str], prompt: Prompt, place: str, lp: str | None = None, *, fields_option: bool = True
) -> Columns:
    """Columns by name, in any case.

    place: the header's file:line; lp: with it, columns with languages are not read, whatever they are; fields_option:
    whether `--fields` could name them instead.

    Raises InputError for a column that is read and missing or found twice, and for one that the output is to add.
    """
    names = [_folded(name) for name in header]
    taken = [name for name in (SCORE_COLUMN, STATUS_COLUMN) if name in names]
    if taken:
        raise InputError(f"{place}: column {taken[0]!r} is there already; rename it, or score the file without it")
    texts = tuple(_need(header, names, field, prompt, place, fields_option) for field in prompt.fields)
    if not prompt.uses_languages:
        return Columns(texts)
    if lp is None:
        return Columns(texts, *_languages(header, names, place))
    accepted = {*PAIR_NAMES, *SOURCE_LANGUAGE_NAMES, *TARGET_LANGUAGE_NAMES}
    overridden = (
        written
        for at, (written, name) in enumerate(zip(header, names, strict=True))
        if name in accepted and at not in texts
    )
    return Columns(texts, overridden=tuple(overridden))


def settled(counts: Mapping[str, int], objects: int, prompt: Prompt) -> list[str]:
    """The names that count, in their order, where not all rows have the same ones, as JSON objects.

    counts: how many of so many objects have each name. A name that the output adds is left out unless all have it, and
    one that could be the same column as another where only that other one is in most objects: a few odd objects do not
    decide how the rest is read.
    """
    folded = {name: _folded(name) for name in counts}
    added = (SCORE_COLUMN, STATUS_COLUMN)
    out = {name for name, count in counts.items() if folded[name] in added and count < objects}
    languages = (PAIR_NAMES, SOURCE_LANGUAGE_NAMES, TARGET_LANGUAGE_NAMES) if prompt.uses_languages else ()
    for accepted in (*map(accepted_names, prompt.fields), *languages):
        wanted = set(map(_folded, accepted))
        rivals = [name for name in counts if folded[name] in wanted]
        usual = [name for name in rivals if 2 * counts[name] > objects]
        if len(usual) == 1:
            out |= set(rivals) - set(usual)
    return [name for name in counts if name not in out]


def from_fields(fields: str, prompt: Prompt) -> Columns:
    """Columns of a headerless table from `--fields`: the number, from 1, of each text's column, as "1,2".

    Raises UsageError.
    """
    parts = [part.strip() for part in fields.split(",")]
    numbers = [int(part) for part in parts if part.isdecimal() and len(part) <= NUMBER_DIGITS]
    wanted = len(prompt.fields)
    if len(numbers) != len(parts) or len(numbers) != wanted or len(set(numbers)) != wanted or 0 in numbers:
        example = ",".join(map(str, range(1, wanted + 1)))
        shown = fields if len(fields) <= FIELDS_SHOWN else f"{fields[:FIELDS_SHOWN]}..."
        raise UsageError(
            f"--fields {shown}: give the number{'s' if wanted > 1 else ''} of the "
            f"{' and the '.join(usual_names(prompt))} column, counted from 1, as {example}"
        )
    return Columns(tuple(number - 1 for number in numbers))


def _languages(header: Sequence[str], names: Sequence[str], place: str) -> tuple[tuple[int, ...], str]:
    """`Columns.languages` and `Columns.lone_language`."""
    pair = _find(header, names, PAIR_NAMES, place)
    if pair is not None:
        return (pair,), ""
    either = [_find(header, names, accepted, place) for accepted in (SOURCE_LANGUAGE_NAMES, TARGET_LANGUAGE_NAMES)]
    found = tuple(at for at in either if at is not None)
    return ((), header[found[0]]) if len(found) == 1 else (found, "")


def _find(header: Sequence[str], names: Sequence[str], accepted: Sequence[str], place: str) -> int | None:
    wanted = {_folded(name) for name in accepted}
    found = [position for position, name in enumerate(names) if name in wanted]
    if len(found) > 1:
        several = listed([header[position] for position in found], " and ")
        raise InputError(f"{place}: columns {several} could each be the {accepted[0]}; rename all but one")
    return found[0] if found else None


def _need(
    header: Sequence[str], names: Sequence[str], field: str, prompt: Prompt, place: str, fields_option: bool
) -> int:
    accepted = accepted_names(field)
    position = _find(header, names, accepted, place)
    if position is None:
        if fields_option and without_tabs(header):
            raise InputError(
                f"{place}: no tab in the header {shortened(header[0])}; write tabs between cells, not commas or "
                "semicolons, or JSON lines in a file whose name ends in .jsonl"
            )
        *others, last = accepted
        fields = ",".join(name.upper() for name in usual_names(prompt))
        or_told = f", or give --fields {fields} ({'numbers' if len(prompt.fields) > 1 else 'its number'}) "
        raise InputError(
            f"{place}: no {accepted[0]} column among {listed(header, ', ')}; name it "
            f"{', '.join(others)}{' or ' if others else ''}{last}"
            f"{or_told + 'for a file without a header' if fields_option else ''}"
        )
    return position


def listed(names: Sequence[str], between: str) -> str:
    """Names in a message: as many as a person reads, each shortened."""
    return some_of([*map(shortened, names)], between)


def some_of(names: Sequence[str], between: str) -> str:
    """Names in a message: as many as a person reads, as they are."""
    more = [f"{len(names) - NAMES_SHOWN} more"] if len(names) > NAMES_SHOWN else []
    return between.join([*names[:NAMES_SHOWN], *more])


def without_tabs(header: Sequence[str]) -> bool:
    """Whether a header is one of CSV, or of JSON, that was read as TSV."""
    return len(header) == 1 and any(sign in header[0] for sign in OTHER_SIGNS)


def _folded(name: str) -> str:
    return name.strip().casefold()
