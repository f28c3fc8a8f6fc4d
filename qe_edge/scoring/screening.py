"""What can be said of a row before the model sees it."""

from __future__ import annotations

from collections.abc import Container

from qe_edge.rows import Row, Status


def blocking_status(row: Row) -> Status | None:
    """Why a row cannot be scored at all, or None."""
    if row.fault is not None:
        return Status.INVALID
    if not row.source.strip():
        return Status.EMPTY_SOURCE
    if not row.translation.strip():
        return Status.EMPTY_TRANSLATION
    return None


def scored_status(row: Row, truncated: bool, trained_pairs: Container[str]) -> Status:
    """The status of a row that is scored: the first suspicion that applies, else ok."""
    if truncated:
        return Status.TRUNCATED
    if row.pair not in trained_pairs:
        return Status.UNSUPPORTED_LANGUAGE
    if _words(row.source) == _words(row.translation):
        return Status.COPIED_SOURCE
    return Status.OK


def _words(text: str) -> list[str]:
    return text.casefold().split()
