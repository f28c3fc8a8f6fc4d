"""From prompts to ids: fixed parts apart from texts, texts never read as control tokens, shortening at the limit."""

from __future__ import annotations

import pytest
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from qe_edge.errors import UsageError
from qe_edge.prompt import Prompt
from qe_edge.tokens import PromptEncoder

PAIR = ("A", "B")
PROMPT = Prompt("{sl}>{tl}: {src}|{mt}=")


def letters(token_limit: int, bos: int | None = 0, prompt: Prompt = PROMPT) -> PromptEncoder:
    """An encoder whose every ASCII letter and mark is one token; id 0 is a special token "<s>"."""
    vocabulary = {"<s>": 0, **{chr(code): code for code in range(33, 127)}, "Ġ": 32}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens([AddedToken("<s>", special=True)])
    return PromptEncoder(tokenizer, prompt, bos, token_limit)


def ids(text: str) -> list[int]:
    return [ord(letter) for letter in text]


def test_the_prefix_starts_with_bos_and_ends_before_the_source() -> None:
    fixed = letters(100).fixed(PAIR)

    assert fixed.prefix == [0, *ids("A>B: ")]
    assert fixed.glue == [ids("|"), ids("=")]
    assert letters(100, bos=None).fixed(PAIR).prefix == ids("A>B: ")


def test_a_body_is_source_glue_translation_glue() -> None:
    (body,) = letters(100).bodies([(PAIR, ("xy", "z"))])

    assert body.ids == ids("xy|z=")
    assert not body.truncated


def test_special_token_strings_in_a_text_are_plain_text() -> None:
    (body,) = letters(100).bodies([(PAIR, ("<s>", "z"))])

    assert body.ids == ids("<s>|z=")


def test_a_prompt_of_exactly_the_limit_is_whole_and_one_more_is_shortened() -> None:
    fixed = 6 + 1 + 1  # prefix with BOS, middle, end
    encoder = letters(fixed + 6)

    whole, cut = encoder.bodies([(PAIR, ("abcd", "xy")), (PAIR, ("abcdefgh", "wxyz"))])

    assert whole.ids == ids("abcd|xy=")
    assert not whole.truncated
    assert cut.ids == ids("abcd|wx=")  # 12 letters into room for 6: each side keeps half
    assert cut.truncated


def test_a_limit_that_leaves_no_room_for_text_is_refused() -> None:
    with pytest.raises(UsageError, match="token limit 9 leaves no room"):
        letters(9).fixed(PAIR)


def test_a_prompt_with_one_text_and_no_words_is_the_text() -> None:
    encoder = letters(4, bos=None, prompt=Prompt("{text}"))

    whole, cut = encoder.bodies([(("", ""), ("abcd",)), (("", ""), ("abcde",))])

    assert encoder.fixed(("", "")).prefix == []
    assert (whole.ids, whole.truncated) == (ids("abcd"), False)
    assert (cut.ids, cut.truncated) == (ids("abcd"), True)


def test_three_texts_are_shortened_together_and_keep_their_glue() -> None:
    encoder = letters(1 + 4 + 6, prompt=Prompt("+{a}-{b}*{c}/"))  # BOS, four marks, room for 6 letters

    whole, cut = encoder.bodies([(("", ""), ("ab", "cd", "ef")), (("", ""), ("abcdef", "ghij", "kl"))])

    assert encoder.fixed(("", "")).prefix == [0, *ids("+")]
    assert (whole.ids, whole.truncated) == (ids("ab-cd*ef/"), False)
    assert (cut.ids, cut.truncated) == (ids("abc-gh*k/"), True)  # 12 letters into room for 6


def test_a_limit_that_cannot_hold_a_token_of_every_text_is_refused() -> None:
    prompt = Prompt("+{a}-{b}*{c}/")

    assert letters(8, prompt=prompt).fixed(PAIR).glue == [ids("-"), ids("*"), ids("/")]
    with pytest.raises(UsageError, match="token limit 7 leaves no room"):
        letters(7, prompt=prompt).fixed(PAIR)


@pytest.mark.parametrize("texts", [(), ("a",), ("a", "b", "c")])
def test_another_number_of_texts_than_the_prompt_reads_is_refused(texts: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match=f"a row with {len(texts)} texts where the prompt reads 2: src, mt"):
        letters(100).bodies([(PAIR, texts)])
