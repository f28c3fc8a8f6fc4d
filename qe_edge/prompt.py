"""The prompt, defined once for training, export and scoring.

A prompt is a *prefix* that depends on the language pair alone and a *body* per row. They are tokenised apart, in
training too, so that the prefix can be run once for all rows of a pair. Inside the body each text field is tokenised
apart from the fixed words around it (its *glue*), so that shortening a text never touches the template.

Template text: ALOPE (arXiv 2508.07484).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from qe_edge.errors import InputError

ALOPE_TEMPLATE = (
    "Score the following translation from {sl} to {tl} on a continuous scale from 0 to 100, "
    'where a score of zero means "no meaning preserved" and score of one hundred means '
    '"perfect meaning and grammar". {sl} source: "{src}" {tl} translation: "{mt}" Score: '
)
"""The published prompt, one line; the trailing space belongs to it. sl, tl: English names of the languages."""

LANGUAGE_FIELDS = ("sl", "tl")
TEXT_FIELDS = ("src", "mt")
_FIELD = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Prompt:
    """A template with language fields (`{sl}`, `{tl}`) and, in this order, the text fields `{src}` and `{mt}`.

    Raises InputError on construction when the template has other fields or lacks a text field.
    """

    template: str = ALOPE_TEMPLATE

    def __post_init__(self) -> None:
        names = _FIELD.findall(self.template)
        texts = tuple(name for name in names if name not in LANGUAGE_FIELDS)
        if texts != TEXT_FIELDS:
            raise InputError(
                f"prompt template has the text fields {list(texts)}: it needs {{src}} and then {{mt}}, once each; "
                "language fields are {sl} and {tl}"
            )

    def prefix(self, source: str, target: str) -> str:
        """Everything before the source text, for English language names such as "Estonian", "English"."""
        return self._pieces(source, target)[0]

    def glue(self, source: str, target: str) -> tuple[str, str]:
        """The fixed words after the source text and after the translation."""
        _, middle, end = self._pieces(source, target)
        return middle, end

    def _pieces(self, source: str, target: str) -> tuple[str, str, str]:
        names = {"sl": source, "tl": target}
        before, _, rest = self.template.partition("{src}")
        middle, _, end = rest.partition("{mt}")

        def fill(text: str) -> str:
            return _FIELD.sub(lambda match: names[match[1]], text)

        return fill(before), fill(middle), fill(end)


def shorten(source: int, translation: int, room: int) -> tuple[int, int]:
    """Tokens to keep of a source and a translation so that together they fit `room` tokens.

    Both lose about the same share, from their ends; a side that is not empty keeps at least one token (room >= 2).
    """
    total = source + translation
    if total <= room:
        return source, translation
    keep_source = round(source * room / total)
    keep_source = min(max(keep_source, min(source, 1)), room - min(translation, 1))
    return keep_source, room - keep_source
