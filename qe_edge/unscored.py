"""The answer to a row that could be read and has no score all the same."""

from __future__ import annotations

from dataclasses import dataclass

from qe_edge.rows import Score


@dataclass(frozen=True, slots=True)
class Unscored(Score):
    """No score, status `invalid`, for a reason that lies with the model or the machine, not with how the row reads."""

    reason: str
    """what went wrong and what to do, as one line"""
