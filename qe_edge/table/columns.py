"""Which cells of a table hold the texts of the prompt and the languages."""

from __future__ import annotations

from collections.abc import Sequence
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


@dataclass(frozen=True)
class Columns:
    """Positions of cells, from 0."""

    texts: tuple[int, ...]
    """the cell of each text field of the prompt, in its order"""
    languages: tuple[int, ...] = ()
    """one cell with the pair, such as et-en; or two, with the source and the target language; or none"""


def accepted_names(field: str) -> tuple[str, ...]:
    """Names that a text field's column may have, the usual one first; columns are found in any case."""
    return {"src": SOURCE_NAMES, "mt": TRANSLATION_NAMES}.get(field, (field,))


def usual_names(prompt: Prompt) -> list[str]:
    """What the columns of a prompt's text fields are usually called: source and translation, for translations."""
    return [accepted_names(field)[0] for field in prompt.fields]


def from_header(header: Sequence[str], prompt: Prompt, place: str) -> Columns:
    """Columns by name, in any case. `place` is the header's file:line.

    Raises InputError for a column that is missing, found twice, or that the output is to add.
    """
    names = [_folded(name) for name in header]
    taken = [name for name in (SCORE_COLUMN, STATUS_COLUMN) if name in names]
    if taken:
        raise InputError(f"{place}: column {taken[0]!r} is there already; rename it, or score the file without it")
    return Columns(
        tuple(_need(header, names, field, prompt, place) for field in prompt.fields),
        _languages(header, names, place) if prompt.uses_languages else (),
    )


def from_fields(fields: str, prompt: Prompt) -> Columns:
    """Columns of a headerless table from `--fields`: the number, from 1, of each text's column, as "1,2".

    Raises UsageError.
    """
    numbers = [int(part) for part in fields.split(",") if part.strip().isdecimal()]
    wanted = len(prompt.fields)
    if len(numbers) != len(fields.split(",")) or len(numbers) != wanted or len(set(numbers)) != wanted or 0 in numbers:
        example = ",".join(map(str, range(1, wanted + 1)))
        raise UsageError(
            f"--fields {fields}: give the number{'s' if wanted > 1 else ''} of the "
            f"{' and the '.join(usual_names(prompt))} column, counted from 1, as {example}"
        )
    return Columns(tuple(number - 1 for number in numbers))


def _languages(header: Sequence[str], names: Sequence[str], place: str) -> tuple[int, ...]:
    pair = _find(header, names, PAIR_NAMES, place)
    if pair is not None:
        return (pair,)
    source = _find(header, names, SOURCE_LANGUAGE_NAMES, place)
    target = _find(header, names, TARGET_LANGUAGE_NAMES, place)
    return () if source is None or target is None else (source, target)


def _find(header: Sequence[str], names: Sequence[str], accepted: Sequence[str], place: str) -> int | None:
    wanted = {_folded(name) for name in accepted}
    found = [position for position, name in enumerate(names) if name in wanted]
    if len(found) > 1:
        both = " and ".join(repr(header[position]) for position in found)
        raise InputError(f"{place}: columns {both} could each be the {accepted[0]}; rename all but one")
    return found[0] if found else None


def _need(header: Sequence[str], names: Sequence[str], field: str, prompt: Prompt, place: str) -> int:
    accepted = accepted_names(field)
    position = _find(header, names, accepted, place)
    if position is None:
        *others, last = accepted
        fields = ",".join(name.upper() for name in usual_names(prompt))
        raise InputError(
            f"{place}: no {accepted[0]} column among {', '.join(map(shortened, header))}; name it "
            f"{', '.join(others)}{' or ' if others else ''}{last}, or give --fields {fields} "
            f"({'numbers' if len(prompt.fields) > 1 else 'its number'}) for a file without a header"
        )
    return position


def _folded(name: str) -> str:
    return name.strip().casefold()
