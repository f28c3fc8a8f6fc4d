"""Inputs that fuzzing found or began from: each keeps every promise of the reader or of the prompt builder."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fuzz import prompts, reader

INPUTS = Path(__file__).parent / "inputs"
CHECKS = {"reader": reader.check, "prompts": prompts.check}


@pytest.mark.parametrize(
    "path",
    sorted(path for name in CHECKS for path in (INPUTS / name).iterdir()),
    ids=lambda path: f"{path.parent.name}-{path.name}",
)
def test_a_kept_input_breaks_no_promise(path: Path) -> None:
    CHECKS[path.parent.name](path.read_bytes())


@pytest.mark.parametrize("check", CHECKS.values(), ids=list(CHECKS))
def test_inputs_made_of_awkward_pieces_break_no_promise(check: Callable[[bytes], None]) -> None:
    numbers = random.Random(0)
    pieces = [
        b"\t",
        b"\n",
        b"\r\n",
        b"\r",
        b'"',
        b'""',
        b"a",
        b"\0",
        b"\xff",
        b"\xef\xbb\xbf",
        b"</s>",
        "ö👩‍🚀".encode(),
    ]
    for _ in range(300):
        start = bytes(numbers.randrange(256) for _ in range(2))
        check(start + b"".join(numbers.choices(pieces, k=numbers.randrange(40))))
