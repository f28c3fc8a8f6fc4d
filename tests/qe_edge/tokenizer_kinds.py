"""Tiny tokenizers of the kinds that decoders come with, each with control tokens that a text may try to write."""

from __future__ import annotations

from collections.abc import Callable

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from qe_edge.bundle import EMBEDDED_BUNDLE, TOKENIZER_FILE
from qe_edge.verification.expressions import EXPRESSIONS

MARKED = ("<s>", "</s>", "<bos>", "<eos>", "<|im_start|>", "<|im_end|>", "<|endoftext|>", "[INST]")
"""control tokens that the tokenizer marks as special"""
UNMARKED = ("<tool_call>", "<unused0>", "<start_of_turn>", "<|fim_prefix|>", "<think>")
"""control tokens that it does not"""
SPACES = ("  ", "\n\n", "\t\t")
"""added tokens that are text"""
LETTERS = [chr(code) for code in range(33, 127)]


def embedded() -> Tokenizer:
    """That of the embedded bundle, SmolLM2's."""
    return Tokenizer.from_file(str(EMBEDDED_BUNDLE / TOKENIZER_FILE))


def byte_level() -> Tokenizer:
    """As GPT-2, Qwen and SmolLM2 have it: bytes that are merged; no character is unknown."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab=_numbered([*MARKED, *letters, "er", "<|"]), merges=[("e", "r"), ("<", "|")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return _with_added_tokens(tokenizer)


def whole_words() -> Tokenizer:
    """As Llama 3 and Mistral Tekken have it: a word that is in the vocabulary is taken whole, merges or not."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab=_numbered([*MARKED, *letters, "er"]), merges=[], ignore_merges=True))
    cut = pre_tokenizers.Split(Regex(EXPRESSIONS["Llama 3"]), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [cut, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    return _with_added_tokens(tokenizer)


def sentencepiece() -> Tokenizer:
    """As Llama 2, Mistral 7B and Gemma have it: characters that are merged, unknown ones as their bytes."""
    letters = [*(f"<0x{byte:02X}>" for byte in range(256)), "▁", *LETTERS, "▁t"]
    tokenizer = Tokenizer(
        models.BPE(
            vocab=_numbered(["<unk>", *MARKED, *letters]),
            merges=[("▁", "t")],
            unk_token="<unk>",
            byte_fallback=True,
            fuse_unk=True,
        )
    )
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    return _with_added_tokens(tokenizer)


def unigram() -> Tokenizer:
    """As XGLM has it: the likeliest pieces, among which control tokens cost nothing."""
    pieces = [("<unk>", 0.0), *((token, 0.0) for token in MARKED), *((letter, -3.0) for letter in ["▁", *LETTERS])]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return _with_added_tokens(tokenizer)


def words() -> Tokenizer:
    """A vocabulary of words."""
    tokenizer = Tokenizer(models.WordLevel(_numbered(["<unk>", *MARKED, "a", "b"]), unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return _with_added_tokens(tokenizer)


KINDS: dict[str, Callable[[], Tokenizer]] = {
    made.__name__: made for made in (embedded, byte_level, whole_words, sentencepiece, unigram, words)
}


def control_ids(tokenizer: Tokenizer) -> set[int]:
    """Ids of the control tokens, by their contents."""
    found = {token: tokenizer.token_to_id(token) for token in (*MARKED, *UNMARKED)}
    return {number for number in found.values() if number is not None}


def _numbered(tokens: list[str]) -> dict[str, int]:
    return {token: number for number, token in enumerate(tokens)}


def _with_added_tokens(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in MARKED])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in (*UNMARKED, *SPACES)])
    return tokenizer
