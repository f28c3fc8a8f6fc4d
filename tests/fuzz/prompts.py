"""What must hold for texts of any characters: no control token, nothing over the limit, rows that stand alone."""

from __future__ import annotations

from functools import cache

from tokenizers import Tokenizer

from qe_edge.errors import InputError
from qe_edge.prompt import ALOPE_PROMPT, Prompt
from qe_edge.tokens import CHARACTERS_PER_TOKEN, PromptEncoder
from tests.qe_edge.tokenizer_kinds import KINDS, control_ids

TEMPLATES = (ALOPE_PROMPT, Prompt("{text}"), Prompt("{sl}: {src}|{mt}="), Prompt("</s>{a}<bos>{b}<tool_call>{c}"))
PAIRS = (("Estonian", "English"), ("Nepali", "English"))
BETWEEN = b"\xff"
"""separates texts: no byte of UTF-8"""


def check(data: bytes) -> None:
    """Tokenise texts; the first two bytes say how. Raises AssertionError when a promise is broken."""
    if len(data) < 2:
        return
    how, room = data[0], data[1]
    kind = tuple(KINDS)[how % len(KINDS)]
    prompt = TEMPLATES[how // len(KINDS) % len(TEMPLATES)]
    pair = PAIRS[how >> 7]
    encoder = PromptEncoder(tokenizer(kind), prompt, None, 1 << 20)
    fixed = encoder.fixed(pair)
    encoder.token_limit = len(fixed.prefix) + sum(map(len, fixed.glue)) + len(prompt.fields) + room
    texts = [text.decode("utf-8", "surrogateescape") for text in data[2:].split(BETWEEN)]
    texts += [""] * (-len(texts) % len(prompt.fields))
    rows = [tuple(texts[at : at + len(prompt.fields)]) for at in range(0, len(texts), len(prompt.fields))]
    try:
        bodies = encoder.bodies([(pair, row) for row in rows])
    except InputError:
        assert any("\ud800" <= letter <= "\udfff" for text in texts for letter in text)
        return
    assert bodies[::-1] == encoder.bodies([(pair, row) for row in rows[::-1]]), "a row's prompt knows no other row"
    assert bodies[:1] == encoder.bodies([(pair, rows[0])])
    for row, body in zip(rows, bodies, strict=True):
        assert body.ids
        assert len(fixed.prefix) + len(body.ids) <= encoder.token_limit
        assert controls(kind).isdisjoint(fixed.prefix + body.ids), "a control token in a text is text"
        if any(len(text) > CHARACTERS_PER_TOKEN * encoder.token_limit for text in row):
            assert body.truncated
        elif body.truncated:
            assert len(fixed.prefix) + len(body.ids) == encoder.token_limit, "no more is cut off than must be"
        elif kind == "byte_level":
            written = "".join(text + words for text, words in zip(row, prompt.glue(*pair), strict=True))
            read = tokenizer(kind).decode(body.ids, skip_special_tokens=False)
            assert read == (written or " "), "no character is lost"


@cache
def tokenizer(kind: str) -> Tokenizer:
    """One of each kind; making them is slow."""
    return KINDS[kind]()


@cache
def controls(kind: str) -> frozenset[int]:
    """Ids of its control tokens."""
    return frozenset(control_ids(tokenizer(kind)))
