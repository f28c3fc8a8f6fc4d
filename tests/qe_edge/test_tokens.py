"""From prompts to ids: fixed parts apart from texts, texts never read as control tokens, shortening at the limit."""

from __future__ import annotations

import pytest
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from qe_edge.errors import UsageError
from qe_edge.prompt import Prompt
from qe_edge.tokens import PromptEncoder

PAIR = ("A", "B")
PROMPT = Prompt("{sl}>{tl}: {src}|{mt}=")


def letters(token_limit: int, bos: int | None = 0) -> PromptEncoder:
    """An encoder whose every ASCII letter and mark is one token; id 0 is a special token "<s>"."""
    vocabulary = {"<s>": 0, **{chr(code): code for code in range(33, 127)}, "Ġ": 32}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens([AddedToken("<s>", special=True)])
    return PromptEncoder(tokenizer, PROMPT, bos, token_limit)


def ids(text: str) -> list[int]:
    return [ord(letter) for letter in text]


def test_the_prefix_starts_with_bos_and_ends_before_the_source() -> None:
    fixed = letters(100).fixed(PAIR)

    assert fixed.prefix == [0, *ids("A>B: ")]
    assert (fixed.middle, fixed.end) == (ids("|"), ids("="))
    assert letters(100, bos=None).fixed(PAIR).prefix == ids("A>B: ")


def test_a_body_is_source_glue_translation_glue() -> None:
    (body,) = letters(100).bodies([(PAIR, "xy", "z")])

    assert body.ids == ids("xy|z=")
    assert not body.truncated


def test_special_token_strings_in_a_text_are_plain_text() -> None:
    (body,) = letters(100).bodies([(PAIR, "<s>", "z")])

    assert body.ids == ids("<s>|z=")


def test_a_prompt_of_exactly_the_limit_is_whole_and_one_more_is_shortened() -> None:
    fixed = 6 + 1 + 1  # prefix with BOS, middle, end
    encoder = letters(fixed + 6)

    whole, cut = encoder.bodies([(PAIR, "abcd", "xy"), (PAIR, "abcdefgh", "wxyz")])

    assert whole.ids == ids("abcd|xy=")
    assert not whole.truncated
    assert cut.ids == ids("abcd|wx=")  # 12 letters into room for 6: each side keeps half
    assert cut.truncated


def test_a_limit_that_leaves_no_room_for_text_is_refused() -> None:
    with pytest.raises(UsageError, match="token limit 9 leaves no room"):
        letters(9).fixed(PAIR)
