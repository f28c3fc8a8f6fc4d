"""The prompt, defined once for training, export and scoring.

A prompt is a *prefix* that depends on the language pair alone and a *body* per row. They are tokenised apart, in
training too, so that the prefix can be run once for all rows of a pair. Inside the body each text is tokenised apart
from the fixed words around it (its *glue*), so that shortening a text never touches the template.

Template text for translations: ALOPE (arXiv 2508.07484).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from string import Formatter

from qe_edge.errors import InputError

ALOPE_TEMPLATE = (
    "Score the following translation from {sl} to {tl} on a continuous scale from 0 to 100, "
    'where a score of zero means "no meaning preserved" and score of one hundred means '
    '"perfect meaning and grammar". {sl} source: "{src}" {tl} translation: "{mt}" Score: '
)
"""The published prompt, one line; the trailing space belongs to it. sl, tl: English names of the languages."""

LANGUAGE_FIELDS = ("sl", "tl")
TRANSLATION_FIELDS = ("src", "mt")
BRACES = "a field is the name of a column in braces, as {text}; a brace that is text is written {{ or }}"


@dataclass(frozen=True)
class Prompt:
    """A template with the text fields of a row, at least one, and perhaps the language fields `{sl}` and `{tl}`.

    A text field is the name of a column; `{src}` and `{mt}` stand for the source and the translation under any of their
    accepted names. Braces that are text are doubled, as in `str.format`.
    Raises InputError on construction when the template has no text field, one of them twice, or a lone brace.
    """

    template: str = ALOPE_TEMPLATE

    def __post_init__(self) -> None:
        if not self.fields:
            raise InputError(f"prompt template {self.template!r} has no text field; {BRACES}")
        folded = [field.casefold() for field in self.fields]  # column names are found in any case
        twice = [field for field, name in zip(self.fields, folded, strict=True) if folded.count(name) > 1]
        if twice:
            raise InputError(f"prompt template has the text field {{{twice[0]}}} more than once; use each text once")

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """Names of the text fields, in the order of the template."""
        return tuple(name for _, name in self._parts if name is not None and name not in LANGUAGE_FIELDS)

    @cached_property
    def uses_languages(self) -> bool:
        """Whether the prompt names a language, so that rows must say theirs."""
        return any(name in LANGUAGE_FIELDS for _, name in self._parts)

    @property
    def is_translation(self) -> bool:
        """Whether the texts are a source and then its translation."""
        return self.fields == TRANSLATION_FIELDS

    def prefix(self, source: str, target: str) -> str:
        """Everything before the first text, for English language names such as "Estonian", "English"."""
        return self._pieces(source, target)[0]

    def glue(self, source: str, target: str) -> tuple[str, ...]:
        """The fixed words after each text; may be empty."""
        return tuple(self._pieces(source, target)[1:])

    def _pieces(self, source: str, target: str) -> list[str]:
        """The words before, between and after the texts."""
        languages = dict(zip(LANGUAGE_FIELDS, (source, target), strict=True))
        pieces = [""]
        for words, name in self._parts:
            pieces[-1] += words
            if name in languages:
                pieces[-1] += languages[name]
            elif name is not None:
                pieces.append("")
        return pieces

    @cached_property
    def _parts(self) -> list[tuple[str, str | None]]:
        """Fixed words, each with the name of the field after them or None."""
        try:
            parts = list(Formatter().parse(self.template))
        except ValueError as error:
            raise InputError(f"prompt template: {error}; {BRACES}") from None
        for _, name, form, conversion in parts:
            if name is not None and (not name or name != name.strip() or form or conversion):
                written = name + (f"!{conversion}" if conversion else "") + (f":{form}" if form else "")
                raise InputError(f"prompt template: {{{written}}} is not a field; {BRACES}")
        return [(words, name) for words, name, _, _ in parts]


ALOPE_PROMPT = Prompt()


def shorten(lengths: Sequence[int], room: int) -> tuple[int, ...]:
    """Tokens to keep of each text so that together they fit `room` tokens, the number of texts or more.

    All lose about the same share, from their ends; a text that is not empty keeps at least one token.
    """
    total = sum(lengths)
    if total <= room:
        return tuple(lengths)
    later = sum(length > 0 for length in lengths)
    kept = []
    for length in lengths:
        # The texts that follow share what this one leaves, so that the room is filled exactly.
        least = min(length, 1)
        later -= least
        keep = min(max(round(length * room / total), least), room - later) if length else 0
        kept.append(keep)
        room -= keep
        total -= length
    return tuple(kept)
