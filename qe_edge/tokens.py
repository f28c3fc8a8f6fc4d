"""From texts to token ids: the one place where prompts become ids, in training and in scoring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from tokenizers import Tokenizer

from qe_edge.errors import UsageError
from qe_edge.prompt import Prompt, shorten

Pair = tuple[str, str]
"""English names of source and target language, as they stand in the prompt."""


@dataclass(frozen=True)
class Body:
    """Token ids of one row after the shared prefix, and whether a text had to be shortened."""

    ids: list[int]
    truncated: bool


@dataclass(frozen=True)
class PromptTokens:
    """The ids of a prompt's fixed parts for one language pair."""

    prefix: list[int]
    middle: list[int]
    end: list[int]


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
        self._prompt = prompt
        self._bos = bos
        self.token_limit = token_limit
        self._fixed: dict[Pair, PromptTokens] = {}

    @cached_property
    def vocabulary_size(self) -> int:
        """Number of ids the tokenizer can produce."""
        return self._tokenizer.get_vocab_size()

    def fixed(self, pair: Pair) -> PromptTokens:
        """The prefix (with BOS) and glue of a language pair; raises UsageError when they leave no room for text."""
        if pair not in self._fixed:
            middle, end = self._prompt.glue(*pair)
            texts = [self._prompt.prefix(*pair), middle, end]
            prefix_ids, middle_ids, end_ids = self._encode(texts)
            start = [] if self._bos is None else [self._bos]
            fixed = PromptTokens(start + prefix_ids, middle_ids, end_ids)
            if self._room(fixed) < 2:
                raise UsageError(f"token limit {self.token_limit} leaves no room for text after the prompt")
            self._fixed[pair] = fixed
        return self._fixed[pair]

    def bodies(self, rows: Sequence[tuple[Pair, str, str]]) -> list[Body]:
        """Bodies of rows `(pair, source, translation)`, tokenised in one call; long texts are shortened together."""
        texts = [text for _, source, translation in rows for text in (source, translation)]
        ids = self._encode(texts)
        return [self._body(self.fixed(pair), ids[2 * i], ids[2 * i + 1]) for i, (pair, _, _) in enumerate(rows)]

    def _room(self, fixed: PromptTokens) -> int:
        return self.token_limit - len(fixed.prefix) - len(fixed.middle) - len(fixed.end)

    def _body(self, fixed: PromptTokens, source: list[int], translation: list[int]) -> Body:
        keep_source, keep_translation = shorten(len(source), len(translation), self._room(fixed))
        truncated = keep_source < len(source) or keep_translation < len(translation)
        ids = source[:keep_source] + fixed.middle + translation[:keep_translation] + fixed.end
        return Body(ids, truncated)

    def _encode(self, texts: list[str]) -> list[list[int]]:
        return [e.ids for e in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
