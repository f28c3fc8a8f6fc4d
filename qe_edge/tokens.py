"""From texts to token ids: the one place where prompts become ids, in training and in scoring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from tokenizers import Tokenizer

from qe_edge.errors import UsageError
from qe_edge.prompt import Prompt, shorten

Pair = tuple[str, str]
"""English names of source and target language, as they stand in the prompt; two empty ones where it names none."""


@dataclass(frozen=True)
class Body:
    """Token ids of one row after the shared prefix, and whether a text had to be shortened."""

    ids: list[int]
    truncated: bool


@dataclass(frozen=True)
class PromptTokens:
    """The ids of a prompt's fixed parts for one language pair."""

    prefix: list[int]
    """before the first text, BOS included; may be empty"""
    glue: list[list[int]]
    """after each text; may be empty"""


class PromptEncoder:
    """Tokenises prompts. Texts are data: a special-token string inside a text is encoded as plain text.

    tokenizer: a `tokenizers.Tokenizer`; bos: id put before the prefix, or None; token_limit: the most tokens a
    whole prompt (prefix and body) may have.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: Prompt, bos: int | None, token_limit: int) -> None:
        tokenizer.no_padding()
        tokenizer.no_truncation()
        tokenizer.encode_special_tokens = True
        self._tokenizer = tokenizer
        self._bos = bos
        self.prompt = prompt
        self.token_limit = token_limit
        self._fixed: dict[Pair, PromptTokens] = {}

    @cached_property
    def vocabulary_size(self) -> int:
        """Number of ids the tokenizer can produce."""
        return self._tokenizer.get_vocab_size()

    def fixed(self, pair: Pair) -> PromptTokens:
        """The prefix (with BOS) and glue of a language pair; raises UsageError when they leave no room for text."""
        if pair not in self._fixed:
            prefix, *glue = self._encode([self.prompt.prefix(*pair), *self.prompt.glue(*pair)])
            start = [] if self._bos is None else [self._bos]
            fixed = PromptTokens(start + prefix, glue)
            if self._room(fixed) < len(self.prompt.fields):
                raise UsageError(f"token limit {self.token_limit} leaves no room for text after the prompt")
            self._fixed[pair] = fixed
        return self._fixed[pair]

    def bodies(self, rows: Sequence[tuple[Pair, tuple[str, ...]]]) -> list[Body]:
        """Bodies of rows, tokenised in one call. A row is its languages and a text for every field of the prompt.

        Texts that are too long for the token limit are shortened together. Raises UsageError for another number of
        texts than the prompt has.
        """
        fields = self.prompt.fields
        for _, texts in rows:
            if len(texts) != len(fields):
                raise UsageError(
                    f"a row with {len(texts)} texts where the prompt reads {len(fields)}: {', '.join(fields)}; "
                    "give a tuple with a text for each"
                )
        ids = self._encode([text for _, texts in rows for text in texts])
        starts = range(0, len(ids), len(fields))
        return [
            self._body(self.fixed(pair), ids[start : start + len(fields)])
            for (pair, _), start in zip(rows, starts, strict=True)
        ]

    def _room(self, fixed: PromptTokens) -> int:
        return self.token_limit - len(fixed.prefix) - sum(map(len, fixed.glue))

    def _body(self, fixed: PromptTokens, texts: Sequence[list[int]]) -> Body:
        kept = shorten([len(text) for text in texts], self._room(fixed))
        ids: list[int] = []
        for text, keep, glue in zip(texts, kept, fixed.glue, strict=True):
            ids += text[:keep] + glue
        return Body(ids, any(keep < len(text) for text, keep in zip(texts, kept, strict=True)))

    def _encode(self, texts: list[str]) -> list[list[int]]:
        return [e.ids for e in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
