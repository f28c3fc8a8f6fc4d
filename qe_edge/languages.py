"""Languages: any usual way to write one, brought to one code, and the English name that stands in prompts.

The tables come from the library `langcodes`; it is imported when a language is not written as its code of two letters.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from functools import cache, lru_cache, wraps
from typing import TYPE_CHECKING, TypeVar

from qe_edge.errors import InputError
from qe_edge.iso_639_1 import NAMES

if TYPE_CHECKING:
    from langcodes import Language

T = TypeVar("T")
ARROWS = re.compile(r"\s*(?:->|→|>|:)\s*")
DASHES = re.compile(r"[-_]")
REGION_FIRST = re.compile(r"[A-Z]{2}(?:[-_]|$)")
_IGNORED = str.maketrans("", "", "(),")
NO_LANGUAGE = {"und", "mul", "zxx", "mis"}
"""ISO 639 codes that do not name one language."""
HOW_TO_WRITE = "use an ISO 639 code such as et or est, or an English name such as Estonian"
LONGEST = 200
"""Characters; longer texts are refused unread. The longest English name of a language has 56."""

LIKENESS = 0.75
"""of a name that is suggested for an unknown one, from 0 to 1 (difflib)"""


def _remembered(function: Callable[[str], T]) -> Callable[[str], T]:
    """Keep a function's recent answers and refusals: looking for the names nearest to an unknown one takes time."""

    @lru_cache(maxsize=4096)
    def answer(text: str) -> tuple[T | None, str]:
        try:
            return function(text), ""
        except InputError as error:
            return None, str(error)

    @wraps(function)
    def remembering(text: str) -> T:
        if len(text) > LONGEST:
            raise InputError(f"{text[:20]!r}... of {len(text)} characters is no language; {HOW_TO_WRITE}")
        value, refusal = answer(text)
        if value is None:
            raise InputError(refusal)
        return value

    return remembering


@_remembered
def resolve(text: str) -> str:
    """The ISO 639-1 code of a language, or the 639-3 code where there is none.

    Accepts ISO 639-1 and 639-3 codes, tags with a script or region (`pt-BR` -> `pt`) and English names, in any case.
    A code for the standard form of a larger language gives the larger one (`cmn` -> `zh`, `ekk` -> `et`).
    Raises InputError with the value and the nearest names.
    """
    wanted = text.strip()
    code = _code(wanted)
    if code is None:
        raise InputError(f"unknown language {text!r}; {_nearest(wanted)}{HOW_TO_WRITE}")
    return code


@cache
def english_name(code: str) -> str:
    """The English name of a code that `resolve` returned, e.g. `et` -> "Estonian"."""
    return NAMES.get(code) or _language(code).language_name("en")


@_remembered
def parse_pair(text: str) -> tuple[str, str]:
    """Codes of source and target: `et-en`, `et_en`, `est-eng`, `Estonian-English`, `en-pt-BR`, `en:pt-BR`, `et -> en`.

    With dashes alone, two parts are always two languages (`pt-BR` is Portuguese to Breton); of more parts, a region
    is told from a language by its capitals. Raises InputError with the value.
    """
    parts = ARROWS.split(text.strip())
    if len(parts) == 1:
        parts = DASHES.split(parts[0])
    if len(parts) == 2:
        return resolve(parts[0]), resolve(parts[1])
    codes = [(_code(source.strip()), _code(target.strip())) for source, target in _cuts(text.strip())]
    pairs = {(source, target) for source, target in codes if source is not None and target is not None}
    if len(pairs) == 1:
        return pairs.pop()
    raise InputError(f"{text!r} does not name one language pair; write it as et-en, or with a region as en:pt-BR")


def _cuts(text: str) -> list[tuple[str, str]]:
    """Every way to cut a dashed text into two languages.

    >>> _cuts("en-pt-BR"), _cuts("en-pt-br")
    ([('en', 'pt-BR')], [])
    """
    places = [match.start() for match in DASHES.finditer(text)]
    cuts = [(text[:at], text[at + 1 :]) for at in places]
    return [cut for cut in cuts if not REGION_FIRST.match(cut[1]) and not any(map(_holds_two_languages, cut))]


def _holds_two_languages(part: str) -> bool:
    """Whether a part such as `en-de` goes on with another language code rather than with a region (`en-DE`)."""
    rest = DASHES.split(part)[1:]
    return any(len(tag) <= 3 and not tag.isupper() and _code_of_tag(tag) is not None for tag in rest)


def _code(text: str) -> str | None:
    """The code of a language by a tag or a name, or None."""
    return _code_of_tag(text) or _code_of_name(text)


def _code_of_tag(text: str) -> str | None:
    if text in NAMES:
        return text
    from langcodes.tag_parser import LanguageTagError

    try:
        language = _language(text)
    except LanguageTagError:
        return None
    code = language.language
    known = code and language.is_valid() and not language.language_name("en").startswith("Unknown language")
    return code if known and code not in NO_LANGUAGE else None


def _language(tag: str) -> Language:
    from langcodes import Language

    return Language.get(tag.replace("_", "-")).prefer_macrolanguage()


def _code_of_name(text: str) -> str | None:
    key = _name_key(text)
    if " " not in key and key != text.casefold():
        return None  # punctuation belongs to names of several words: `en-` or `(en)` is not the language called En
    tag = _english_names().get(key)
    return None if tag is None else _code_of_tag(tag)


@cache
def _english_names() -> dict[str, str]:
    """Tags by normalised English name, e.g. "estonian" -> "et".

    The library's own lookup also takes a name by its beginning ("estonain" would do), which hides misspellings.
    """
    from language_data.names import load_trie  # type: ignore[import-untyped]
    from language_data.util import data_filename  # type: ignore[import-untyped]

    names = load_trie(data_filename("trie/en/name_to_language.marisa"))
    return {name: tag.decode() for name, tag in names.items()}


def _name_key(name: str) -> str:
    """A name as the library's table writes it: folded case, no hyphens, brackets or commas."""
    return name.casefold().replace("-", " ").translate(_IGNORED).strip()


@cache
def _names_by_length() -> dict[int, list[tuple[int, str]]]:
    """The English names by length, each with its letters."""
    names: dict[int, list[tuple[int, str]]] = {}
    for name in _english_names():
        names.setdefault(len(name), []).append((_letters(name), name))
    return names


def _letters(text: str) -> int:
    """Which letters a text has, as bits of a number; two letters may share one."""
    bits = 0
    for letter in text:
        bits |= 1 << ord(letter) % 64
    return bits


def _nearest(text: str) -> str:
    """The names most like a text, as a question, or nothing.

    Comparing takes long, so names are left out that cannot be as like it as asked: likeness is twice the number of
    letters in common, of those of both, and no letter that only one of the two has is in common.
    """
    folded = text.casefold()
    letters = _letters(folded)
    candidates = []
    for length, names in _names_by_length().items():
        needed = LIKENESS * (len(folded) + length) / 2
        if needed <= min(len(folded), length):
            mine, theirs = len(folded) - needed, length - needed  # so many letters may be missing in the other
            candidates += [
                name
                for bits, name in names
                if (letters & ~bits).bit_count() <= mine and (bits & ~letters).bit_count() <= theirs
            ]
    close = difflib.get_close_matches(folded, candidates, n=2, cutoff=LIKENESS)
    return f"did you mean {' or '.join(name.title() for name in close)}? " if close else ""
