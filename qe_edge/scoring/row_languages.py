"""The languages of a row as the scorer needs them: codes to tell rows apart, English names for the prompt."""

from __future__ import annotations

from dataclasses import replace

from qe_edge.errors import InputError
from qe_edge.languages import english_name, resolve
from qe_edge.rows import Row
from qe_edge.tokens import Pair


def with_codes(row: Row) -> Row:
    """The row with its languages as codes; with a fault if one of them is unknown."""
    if row.fault is not None:
        return row
    try:
        codes = resolve(row.source_language), resolve(row.target_language)
    except InputError as error:
        return replace(row, fault=str(error))
    if codes == (row.source_language, row.target_language):
        return row
    return replace(row, source_language=codes[0], target_language=codes[1])


def without_languages(row: Row) -> Row:
    """The row without its languages, which play no part in a prompt that names none."""
    return replace(row, source_language="", target_language="")


def language_names(row: Row) -> Pair:
    """English names of a row's languages; two empty ones for a row without them."""
    if not row.source_language:
        return "", ""
    return english_name(row.source_language), english_name(row.target_language)
