"""Which cells of a table hold the source, the translation and the languages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qe_edge.errors import InputError, UsageError

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

    source: int
    translation: int
    languages: tuple[int, ...] = ()
    """one cell with the pair, such as et-en; or two, with the source and the target language; or none"""


def from_header(header: Sequence[str], place: str) -> Columns:
    """Columns by name, in any case. `place` is the header's file:line.

    Raises InputError for a column that is missing, found twice, or that the output is to add.
    """
    names = [name.strip().casefold() for name in header]
    taken = [name for name in (SCORE_COLUMN, STATUS_COLUMN) if name in names]
    if taken:
        raise InputError(f"{place}: column {taken[0]!r} is there already; rename it, or score the file without it")
    pair = _find(header, names, PAIR_NAMES, place)
    both = _find(header, names, SOURCE_LANGUAGE_NAMES, place), _find(header, names, TARGET_LANGUAGE_NAMES, place)
    languages = (pair,) if pair is not None else both
    return Columns(
        source=_need(header, names, SOURCE_NAMES, place),
        translation=_need(header, names, TRANSLATION_NAMES, place),
        languages=() if None in languages else tuple(at for at in languages if at is not None),
    )


def from_fields(fields: str) -> Columns:
    """Columns of a headerless table from `--fields`: numbers from 1 of the source and the translation, as "1,2".

    Raises UsageError.
    """
    numbers = [int(part) for part in fields.split(",") if part.strip().isdecimal()]
    if len(numbers) != len(fields.split(",")) or len(set(numbers)) != 2 or len(numbers) != 2 or min(numbers) < 1:
        raise UsageError(
            f"--fields {fields}: give the numbers of the source and the translation column, counted from 1, as 1,2"
        )
    return Columns(numbers[0] - 1, numbers[1] - 1)


def _find(header: Sequence[str], names: Sequence[str], accepted: Sequence[str], place: str) -> int | None:
    found = [position for position, name in enumerate(names) if name in accepted]
    if len(found) > 1:
        both = " and ".join(repr(header[position]) for position in found)
        raise InputError(f"{place}: columns {both} could each be the {accepted[0]}; rename all but one")
    return found[0] if found else None


def _need(header: Sequence[str], names: Sequence[str], accepted: Sequence[str], place: str) -> int:
    position = _find(header, names, accepted, place)
    if position is None:
        raise InputError(
            f"{place}: no {accepted[0]} column among {', '.join(map(repr, header))}; name it "
            f"{', '.join(accepted[:-1])} or {accepted[-1]}, or give --fields SOURCE,TRANSLATION (numbers) "
            "for a file without a header"
        )
    return position
