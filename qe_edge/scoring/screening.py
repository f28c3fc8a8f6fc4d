"""What can be said of a row before the model sees it."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import replace

from qe_edge.prompt import Prompt
from qe_edge.rows import Row, Status
from qe_edge.tokens import not_unicode


def readable(row: Row) -> Row:
    """The row, with a fault if one of its texts is not Unicode."""
    if row.fault is not None:
        return row
    fault = next(filter(None, map(not_unicode, row.texts)), None)
    return row if fault is None else replace(row, fault=fault)


def blocking_status(row: Row, prompt: Prompt) -> Status | None:
    """Why a row cannot be scored at all, or None."""
    if row.fault is not None:
        return Status.INVALID
    empty = [number for number, text in enumerate(row.texts) if not text.strip()]
    if not empty:
        return None
    if not prompt.is_translation:
        return Status.EMPTY_TEXT
    return Status.EMPTY_SOURCE if empty[0] == 0 else Status.EMPTY_TRANSLATION


def scored_status(row: Row, prompt: Prompt, truncated: bool, trained_pairs: Container[str]) -> Status:
    """The status of a row that is scored: the first suspicion that applies, else ok."""
    if truncated:
        return Status.TRUNCATED
    if prompt.uses_languages and row.pair not in trained_pairs:
        return Status.UNSUPPORTED_LANGUAGE
    if prompt.is_translation and _words(row.texts[0]) == _words(row.texts[1]):
        return Status.COPIED_SOURCE
    return Status.OK


def _words(text: str) -> list[str]:
    return text.casefold().split()
