"""What goes into a scorer and what comes out: rows, statuses and scores."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from reprlib import repr as shortened
from typing import Self

from qe_edge.errors import UsageError

HELD_CHARACTERS = 1 << 22
"""Characters with which rows that are held at once are enough, however few they are: rows of megabytes would fill the
memory."""


def lone_surrogate(text: str) -> int | None:
    """Where half a surrogate pair stands in a text, the first one; None for a text that can be encoded."""
    try:
        text.encode()  # much faster than a search with a regular expression
    except UnicodeEncodeError as error:
        return error.start
    return None


class Status(StrEnum):
    """What happened to a row. Declared from most to least important: a row carries the first that applies."""

    INVALID = "invalid"
    """the row could not be read, its language is unknown, or the model could not score it; no score"""
    EMPTY_SOURCE = "empty_source"
    """the source of a translation is empty or white space; no score"""
    EMPTY_TRANSLATION = "empty_translation"
    """the translation is empty or white space; no score"""
    EMPTY_TEXT = "empty_text"
    """one of the texts is empty or white space, in a bundle that does not score translations; no score"""
    TRUNCATED = "truncated"
    """the texts were shortened together to fit the token limit; scored on what was kept"""
    UNSUPPORTED_LANGUAGE = "unsupported_language"
    """the bundle was not trained on this language pair; scored, with caution"""
    COPIED_SOURCE = "copied_source"
    """the translation repeats the source word for word; scored, but likely untranslated"""
    OK = "ok"
    """scored, nothing suspicious"""


@dataclass(frozen=True, slots=True)
class Row:
    """What is scored as one: the texts that the bundle's prompt asks for, in its order.

    source_language, target_language: any spelling that `qe_edge.languages.resolve` accepts, such as et, est or
    Estonian; they play no part where the prompt names no language. fault: why the row could not be read, or None. A row
    with a fault or an unknown language is not scored and comes out as `invalid`. beside: characters that are kept for
    the row besides, until it has its score, as its line in the file; they count for how many rows are read ahead.
    """

    texts: tuple[str, ...]
    source_language: str = ""
    target_language: str = ""
    fault: str | None = None
    beside: int = field(default=0, compare=False)

    @classmethod
    def translation(cls, source: str, translation: str, source_language: str, target_language: str) -> Self:
        """A source and its translation."""
        return cls((source, translation), source_language, target_language)

    @property
    def held(self) -> int:
        """Characters that are kept until the row has its score."""
        return sum(map(len, self.texts)) + len(self.fault or "") + self.beside

    @property
    def pair(self) -> str:
        """Both languages as they are written, e.g. "et-en"."""
        return f"{self.source_language}-{self.target_language}"


def checked(rows: Iterable[Row]) -> Iterator[Row]:
    """The rows as they are. Raises UsageError with the number, from 1, of what is none or holds no strings."""
    for number, row in enumerate(rows, 1):
        if not isinstance(row, Row):
            raise UsageError(
                f"row {number}: must be a qe_edge.Row, not {shortened(row)}; make one with Row.translation"
            )
        if not isinstance(row.texts, tuple | list):
            raise UsageError(f"row {number}: texts must be a tuple of strings, not {shortened(row.texts)}")
        for value in (*row.texts, row.source_language, row.target_language):
            if not isinstance(value, str):
                raise UsageError(f"row {number}: texts and languages must be strings, not {shortened(value)}")
        yield row


@dataclass(frozen=True, slots=True)
class Score:
    """The answer to one row: a number on the bundle's score scale, or None, and the status that explains it.

    reason: of an invalid row, what is wrong and what to do, in one line; None for all others.
    """

    value: float | None
    status: Status
    reason: str | None = None
