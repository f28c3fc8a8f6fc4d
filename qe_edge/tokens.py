"""From texts to token ids: the one place where prompts become ids, in training and in scoring.

Texts are data: whatever stands in them is read as text, and takes time and memory in proportion to the token limit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from threading import Lock

from tokenizers import Tokenizer

from qe_edge.errors import InputError, UsageError
from qe_edge.prompt import Prompt, shorten
from qe_edge.rows import lone_surrogate

Pair = tuple[str, str]
"""English names of source and target language, as they stand in the prompt; two empty ones where it names none."""
PromptRow = tuple[Pair, tuple[str, ...]]
"""The languages of a row, and a text for every field of the prompt."""

CHARACTERS_PER_TOKEN = 32
"""So many characters of a text are read for each token of the limit; texts have two to five a token."""
PAIRS = 1 << 10
"""Language pairs whose fixed parts are kept; bounds memory, not correctness."""
CHARACTERS_AT_ONCE = 1 << 14
"""Rows with about so many characters are tokenised in one call, which takes about 125 bytes for each byte of text."""


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


def not_unicode(text: str) -> str | None:
    """What is wrong with a text that cannot be written in Unicode's encodings; None for all others."""
    at = lone_surrogate(text)
    return None if at is None else f"a text has half a surrogate pair, U+{ord(text[at]):04X}; write the whole character"


class TextEncoder:
    """A tokenizer to which every text is text: control-token strings such as `</s>` are the characters that they are.

    Added tokens are looked for before a tokenizer's model sees a text. That can be left out for those marked special,
    which many control tokens are not (`<tool_call>` of Qwen, `<unused0>` of Gemma): all are marked here but runs of
    white space, which are text. Padding and truncation are switched off, and so is the memory of a BPE or Unigram model
    for words that it has met: it grows to 10,000 of them (8 MB), and saves little beside the time that a graph takes.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        """tokenizer: is changed, and used from now on."""
        tokenizer.no_padding()
        tokenizer.no_truncation()
        resize = getattr(tokenizer.model, "_resize_cache", None)  # of BPE and Unigram, and no promise of the library
        if resize is not None:
            resize(0)
        controls = {
            n: token for n, token in tokenizer.get_added_tokens_decoder().items() if not token.content.isspace()
        }
        tokenizer.add_special_tokens(list(controls.values()))
        tokenizer.encode_special_tokens = True
        unknown = tokenizer.encode("\U0010ffff", add_special_tokens=False).ids  # a code that is no character
        self._controls = frozenset(controls) - frozenset(unknown)
        self._tokenizer = tokenizer

    @property
    def vocabulary_size(self) -> int:
        """Number of ids the tokenizer can produce."""
        return self._tokenizer.get_vocab_size()

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of every text. Raises InputError for a text that is not Unicode.

        Ids of control tokens, which a model that looks up whole words may find in its vocabulary, are left out, except
        that of what the tokenizer does not know.
        """
        for text in texts:
            if fault := not_unicode(text):
                raise InputError(fault)
        found = [e.ids for e in self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]
        return [ids if self._controls.isdisjoint(ids) else [i for i in ids if i not in self._controls] for ids in found]


class PromptEncoder:
    """Tokenises prompts; no text becomes a control token.

    tokenizer: a `tokenizers.Tokenizer`; bos: id put before the prefix, or None; token_limit: the most tokens a
    whole prompt (prefix and body) may have.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: Prompt, bos: int | None, token_limit: int) -> None:
        self._text = TextEncoder(tokenizer)
        self._bos = bos
        self.prompt = prompt
        self.token_limit = token_limit
        self._fixed: dict[Pair, PromptTokens] = {}
        self._one_thread = Lock()  # for these

    @property
    def vocabulary_size(self) -> int:
        """Number of ids the tokenizer can produce."""
        return self._text.vocabulary_size

    def fixed(self, pair: Pair) -> PromptTokens:
        """The prefix (with BOS) and glue of a language pair; raises UsageError when they leave no room for text."""
        with self._one_thread:
            if pair not in self._fixed:
                prefix, *glue = self._text.ids([self.prompt.prefix(*pair), *self.prompt.glue(*pair)])
                start = [] if self._bos is None else [self._bos]
                fixed = PromptTokens(start + prefix, glue)
                if self._room(fixed) < len(self.prompt.fields):
                    raise UsageError(f"token limit {self.token_limit} leaves no room for text after the prompt")
                if len(self._fixed) == PAIRS:
                    del self._fixed[next(iter(self._fixed))]
                self._fixed[pair] = fixed
            return self._fixed[pair]

    def bodies(self, rows: Sequence[PromptRow]) -> list[Body]:
        """Bodies of rows, tokenised in few calls.

        Texts that are too long for the token limit are shortened together. A body has at least one token. Raises
        UsageError for another number of texts than the prompt has, InputError for a text that is not Unicode.
        """
        fields = self.prompt.fields
        for _, texts in rows:
            if len(texts) != len(fields):
                raise UsageError(
                    f"a row with {len(texts)} texts where the prompt reads {len(fields)}: {', '.join(fields)}; "
                    "give a tuple with a text for each"
                )
        return [body for portion in _portions(rows) for body in self._bodies(portion)]

    def _bodies(self, rows: Sequence[PromptRow]) -> Iterator[Body]:
        read = CHARACTERS_PER_TOKEN * self.token_limit
        ids = iter(self._text.ids([text[:read] for _, texts in rows for text in texts]))
        for pair, texts in rows:
            body = self._body(self.fixed(pair), [next(ids) for _ in texts])
            yield Body(body.ids, True) if any(len(text) > read for text in texts) else body

    def _room(self, fixed: PromptTokens) -> int:
        return self.token_limit - len(fixed.prefix) - sum(map(len, fixed.glue))

    def _body(self, fixed: PromptTokens, texts: Sequence[list[int]]) -> Body:
        kept = shorten([len(text) for text in texts], self._room(fixed))
        ids: list[int] = []
        for text, keep, glue in zip(texts, kept, fixed.glue, strict=True):
            ids += text[:keep] + glue
        return Body(ids or [self._blank], any(keep < len(text) for text, keep in zip(texts, kept, strict=True)))

    @cached_property
    def _blank(self) -> int:
        """The token of a body that would have none: its texts hold nothing that the tokenizer has a token for."""
        return next(iter(self._text.ids([" "])[0]), 0)


def _portions(rows: Sequence[PromptRow]) -> Iterator[Sequence[PromptRow]]:
    """Rows in portions of about CHARACTERS_AT_ONCE."""
    first = characters = 0
    for number, (_, texts) in enumerate(rows, 1):
        characters += sum(map(len, texts))
        if characters >= CHARACTERS_AT_ONCE:
            yield rows[first:number]
            first, characters = number, 0
    yield rows[first:]
