"""Every known expression takes time in proportion to the text, on texts made to be slow."""

from __future__ import annotations

import time

import pytest
from tokenizers import Regex, pre_tokenizers

from qe_edge.verification.expressions import EXPRESSIONS

LENGTH = 10_000
SECONDS = 0.5
"""CPU time for one text, ten times what it takes in proportion. Steps with the square of the length take more, or reach
ten million for one match: there the matching stops with an error."""


@pytest.mark.parametrize("name", EXPRESSIONS)
@pytest.mark.parametrize(
    "unit", [" ", "a", "A", "Aa", "é", "1", "\n", " \n", "'", "'l", "!", "! ", " a", "\u0301", "\u3042"]
)
def test_long_repetitions_are_cut_in_time(name: str, unit: str) -> None:
    cut = pre_tokenizers.Split(Regex(EXPRESSIONS[name]), "isolated")

    for ending in ("", "\x00"):
        text = unit * LENGTH + ending
        before = time.process_time()
        pieces = cut.pre_tokenize_str(text)
        assert time.process_time() - before < SECONDS * len(unit)
        assert "".join(piece for piece, _ in pieces) == text
