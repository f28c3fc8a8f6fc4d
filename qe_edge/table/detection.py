"""Languages from the texts, for input that does not name them: a vote over its first rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from qe_edge.errors import InputError
from qe_edge.languages import english_name, resolve

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

DETECTION_ROWS = 1000
"""how many rows are looked at"""
DETECTION_CHARACTERS = 2000
"""how much of a text is looked at: more would not change the vote, and would take its time"""
LEAST_AGREEMENT = 0.6
"""share of rows that must vote for the same language"""
NO_LANGUAGE = "zxx"
"""the identifier's label for text that is no language, such as numbers"""
REMEDY = "give the languages, as --lp et-en"


@dataclass(frozen=True)
class Detected:
    """What the first rows say: ISO 639 codes, the rows looked at, the lower of the two sides' agreement (0 to 1)."""

    source: str
    target: str
    rows: int
    agreement: float


def detect_pair(texts: Iterable[tuple[str, str]], name: str) -> Detected:
    """The languages of rows `(source, translation)`; rows with an empty side do not vote.

    name: the input, for messages. Raises InputError when there is nothing to vote, when fewer than LEAST_AGREEMENT
    of the rows agree, or when both sides are in the same language.
    """
    rows = [row for row in texts if row[0].strip() and row[1].strip()]
    if not rows:
        raise InputError(f"{name}: no text to detect the languages from; {REMEDY}")
    source, source_share = _vote([row[0] for row in rows], "source", name)
    target, target_share = _vote([row[1] for row in rows], "translation", name)
    if source == target:
        raise InputError(f"{name}: source and translation both look like {english_name(source)}; {REMEDY}")
    return Detected(source, target, len(rows), min(source_share, target_share))


def _vote(texts: list[str], side: str, name: str) -> tuple[str, float]:
    identifier = _identifier()
    votes = Counter(identifier.classify(text[:DETECTION_CHARACTERS])[0] for text in texts)
    label, count = max(votes.items(), key=lambda vote: (vote[1], vote[0]))
    share = count / len(texts)
    if label == NO_LANGUAGE or share < LEAST_AGREEMENT:
        seen = ", ".join(f"{label} {count}" for label, count in votes.most_common(3))
        raise InputError(f"{name}: language of the {side} is unclear from {len(texts)} rows ({seen}); {REMEDY}")
    return resolve(label), share


@cache
def _identifier() -> LanguageIdentifier:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE)
