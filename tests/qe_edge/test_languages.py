"""Languages: every usual way to write one leads to one code; what is unknown is named with its neighbours."""

from __future__ import annotations

import difflib
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from itertools import product
from string import ascii_lowercase

import pytest

from qe_edge import languages
from qe_edge.errors import InputError
from qe_edge.iso_639_1 import NAMES
from qe_edge.languages import english_name, parse_pair, resolve


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("et", "et"),
        ("ET", "et"),
        (" et ", "et"),
        ("est", "et"),  # ISO 639-3
        ("ekk", "et"),  # Standard Estonian, the main member of the macrolanguage
        ("cmn", "zh"),
        ("npi", "ne"),
        ("rum", "ro"),  # ISO 639-2/B
        ("pt-BR", "pt"),
        ("zh_CN", "zh"),
        ("zh-Hant", "zh"),
        ("Estonian", "et"),
        ("sinhala", "si"),
        ("Sinhalese", "si"),
        ("Serbo-Croatian", "sr"),
        ("Norwegian (Bokmål)", "nb"),
        ("haw", "haw"),  # no two-letter code
        ("Hawaiian", "haw"),
    ],
)
def test_codes_tags_and_english_names_lead_to_one_code(text: str, code: str) -> None:
    assert resolve(text) == code


def test_the_library_says_the_same_of_every_code_of_two_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(languages, "NAMES", {})
    found = {}
    for code in map("".join, product(ascii_lowercase, repeat=2)):
        with suppress(InputError):
            if resolve.__wrapped__(code) == code:  # type: ignore[attr-defined]  # not what it remembers
                found[code] = english_name.__wrapped__(code)
    assert found == NAMES
    assert len(found) == 181


@pytest.mark.parametrize("text", ["xx", "qqq", "und", "mul", "zxx", "", "et en", "Elbonian", "et-"])
def test_what_is_no_language_is_refused_with_its_value(text: str) -> None:
    with pytest.raises(InputError, match=r"unknown language") as caught:
        resolve(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("text", ["en-", "-en", "en_", "(en)", "en,", "en -", "e(n)", "Estonian,"])
def test_stray_punctuation_does_not_make_another_language(text: str) -> None:
    # Without its punctuation, `en-` would be the name of the language En (enc).
    with pytest.raises(InputError, match=r"unknown language"):
        resolve(text)


def test_a_misspelt_name_is_refused_and_its_neighbour_named() -> None:
    with pytest.raises(InputError, match=r"unknown language 'Estonain'; did you mean Estonian\?"):
        resolve("Estonain")


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("et", "Estonian"),
        ("ne", "Nepali"),
        ("si", "Sinhala"),
        ("zh", "Chinese"),
        ("ro", "Romanian"),
        ("de", "German"),
        ("ru", "Russian"),
        ("en", "English"),
    ],
)
def test_english_names_are_those_of_the_prompts(code: str, name: str) -> None:
    assert english_name(code) == name


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("et-en", ("et", "en")),
        ("ET_EN", ("et", "en")),
        ("est-eng", ("et", "en")),
        ("Estonian-English", ("et", "en")),
        ("et -> en", ("et", "en")),
        ("et>en", ("et", "en")),
        ("en→zh-CN", ("en", "zh")),
        ("en:pt-br", ("en", "pt")),
        ("pt-BR", ("pt", "br")),  # two parts are two languages: Breton, not Brazil
        ("en-pt-BR", ("en", "pt")),
        ("pt-BR-en", ("pt", "en")),
        ("en_US-de_DE", ("en", "de")),
        ("en-zh-cn", ("en", "zh")),  # cn is no language, so it can only be a region
        ("zh-Hant-TW-en", ("zh", "en")),
        ("Serbo-Croatian-English", ("sr", "en")),
    ],
)
def test_pairs_are_split_before_regions_are_read(text: str, pair: tuple[str, str]) -> None:
    assert parse_pair(text) == pair


@pytest.mark.parametrize(
    "text", ["eten", "", "et", "et-en-de", "en-pt-br", "a:b:c", "et\ten", "et-en-", "-et-en", "et--en"]
)
def test_what_is_not_one_pair_is_refused_with_its_value(text: str) -> None:
    with pytest.raises(InputError, match="does not name one language pair") as caught:
        parse_pair(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"), [("et-en,", "'en,'"), ("et-xx", "'xx'"), ("-en", "''"), ("Estonain-English", "'Estonain'")]
)
def test_a_pair_with_an_unknown_language_names_that_language(text: str, value: str) -> None:
    with pytest.raises(InputError, match=f"unknown language {value}"):
        parse_pair(text)


def test_importing_the_module_does_not_import_the_language_tables() -> None:
    code = "import sys, qe_edge.languages; sys.exit('langcodes' in sys.modules or 'language_data' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("text", ["klingonish", "engels", "Estonain", "norwegain bokmal", "x", "", "ж" * 200])
def test_few_names_are_compared_and_the_nearest_of_all_are_found(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    every = sorted(languages._english_names())
    nearest = difflib.get_close_matches(text.casefold(), every, n=2, cutoff=languages.LIKENESS)
    compared: list[int] = []
    whole = difflib.get_close_matches

    def counting(word: str, names: list[str], n: int, cutoff: float) -> list[str]:
        compared.append(len(names))
        return whole(word, names, n, cutoff)

    monkeypatch.setattr(difflib, "get_close_matches", counting)
    assert languages._nearest(text) == (f"did you mean {' or '.join(map(str.title, nearest))}? " if nearest else "")
    assert compared[0] < len(every) / 10


def test_no_nearest_name_is_looked_for_where_a_pair_may_be_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qe_edge.languages._nearest", lambda text: 1 / 0)
    with pytest.raises(InputError, match="does not name one language pair"):
        parse_pair("klingonish-of-the-north")


@pytest.mark.parametrize("read", [resolve, parse_pair])
def test_a_refusal_is_remembered(read: Callable[[str], object], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def nearest(text: str) -> str:
        asked.append(text)
        return "did you mean Ruritanian? "

    monkeypatch.setattr("qe_edge.languages._nearest", nearest)
    text = "Zendian" if read is resolve else "Zubrowkan-en"
    refusals = set()
    for _ in range(3):
        with pytest.raises(InputError) as caught:
            read(text)
        refusals.add(str(caught.value))
    assert len(refusals) == 1
    assert "did you mean Ruritanian?" in refusals.pop()
    assert len(asked) == 1


@pytest.mark.parametrize("read", [resolve, parse_pair])
@pytest.mark.parametrize("unit", ["a", "a-", "et->", "\n"])
def test_a_text_far_too_long_is_refused_unread(
    read: Callable[[str], object], unit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qe_edge.languages._nearest", lambda text: 1 / 0)
    monkeypatch.setattr("qe_edge.languages._cuts", lambda text: 1 / 0)
    with pytest.raises(InputError, match=rf"of {30_000 * len(unit)} characters is no language; ") as caught:
        read(unit * 30_000)
    assert len(str(caught.value)) < 200
