"""What a step of any objective reports."""

from __future__ import annotations

from typing import NamedTuple, Protocol


class Step(NamedTuple):
    """What one step of an objective did."""

    loss: float
    tokens: int
    """real tokens run"""


class Objective(Protocol):
    """One loss with its own data. A step of a given number is always the same rows, whatever came before."""

    @property
    def name(self) -> str:
        """What progress lines call it."""

    def run(self, number: int) -> Step:
        """Forward and backward of step `number`, from 0; the gradients are added to the parameters'."""

    def tokens(self, number: int) -> int:
        """Real tokens of step `number`."""
