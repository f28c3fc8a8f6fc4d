"""The prompt: the published words, templates of one's own, the split into prefix and body, and fair shortening."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qe_edge.errors import InputError
from qe_edge.prompt import ALOPE_PROMPT, Prompt, shorten


def test_the_pieces_join_to_the_published_prompt() -> None:
    middle, end = ALOPE_PROMPT.glue("Estonian", "English")

    # arXiv 2508.07484; one line, trailing space included
    assert ALOPE_PROMPT.prefix("Estonian", "English") + "SRC" + middle + "MT" + end == (
        "Score the following translation from Estonian to English on a continuous scale from 0 to 100, where a score "
        'of zero means "no meaning preserved" and score of one hundred means "perfect meaning and grammar". '
        'Estonian source: "SRC" English translation: "MT" Score: '
    )
    assert ALOPE_PROMPT.is_translation
    assert ALOPE_PROMPT.uses_languages


@pytest.mark.parametrize(
    ("template", "fields", "prefix", "glue"),
    [
        ("{text}", ("text",), "", ("",)),
        ("Valence of: {text} ->", ("text",), "Valence of: ", (" ->",)),
        ("{sl}, {src}|{mt}", ("src", "mt"), "Estonian, ", ("|", "")),
        ("Q {q} A {a} in {tl}; {full text}.", ("q", "a", "full text"), "Q ", (" A ", " in English; ", ".")),
        ('{{"text": "{text}"}}', ("text",), '{"text": "', ('"}',)),
        ("{mt}{sl}{src}", ("mt", "src"), "", ("Estonian", "")),
    ],
)
def test_a_template_is_cut_at_its_texts(
    template: str, fields: tuple[str, ...], prefix: str, glue: tuple[str, ...]
) -> None:
    prompt = Prompt(template)

    assert prompt.fields == fields
    assert prompt.prefix("Estonian", "English") == prefix
    assert prompt.glue("Estonian", "English") == glue


@pytest.mark.parametrize(
    ("template", "is_translation", "uses_languages"),
    [
        ("{src} {mt}", True, False),
        ("{sl} {src} {mt}", True, True),
        ("{mt} {src}", False, False),
        ("{src} {mt} {context}", False, False),
        ("{text}", False, False),
        ("{tl}: {text}", False, True),
    ],
)
def test_what_a_prompt_is_follows_from_its_fields(template: str, is_translation: bool, uses_languages: bool) -> None:
    prompt = Prompt(template)

    assert (prompt.is_translation, prompt.uses_languages) == (is_translation, uses_languages)


def test_braces_in_language_names_are_not_fields() -> None:
    assert Prompt("{sl} {src} {mt}").prefix("{tl}", "English") == "{tl} "


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("", "prompt template '' has no text field; a field is the name of a column in braces, as {text}"),
        ("{sl} to {tl}", "has no text field"),
        ("{{text}}", "has no text field"),
        ("{src} {mt} {mt}", "has the text field {mt} more than once"),
        ("{text} {Text}", "has the text field {text} more than once"),
        ("{text", "prompt template: expected '}' before end of string; "),
        ("text} {text}", "prompt template: Single '}' encountered in format string; "),
        ("{} {text}", "prompt template: {} is not a field; "),
        ("{ text }", "prompt template: { text } is not a field; "),
        ("{text:>5}", "prompt template: {text:>5} is not a field; "),
        ("{text!r}", "prompt template: {text!r} is not a field; "),
        ('{"text": "{text}"}', 'prompt template: {"text": "{text}"} is not a field; '),
    ],
)
def test_a_bad_template_is_refused_and_told_why(template: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        Prompt(template)

    assert message in str(caught.value)
    assert str(caught.value).startswith("prompt template")


@pytest.mark.parametrize(
    ("lengths", "room", "expected"),
    [
        ((3, 4), 7, (3, 4)),  # fits
        ((10, 10), 10, (5, 5)),  # equal shares
        ((30, 10), 20, (15, 5)),  # both lose half
        ((1, 1000), 10, (1, 9)),  # the short side keeps a token
        ((1000, 1), 10, (9, 1)),
        ((0, 20), 10, (0, 10)),
        ((12,), 12, (12,)),
        ((13,), 12, (12,)),
        ((30, 20, 10), 30, (15, 10, 5)),  # all lose half
        ((1000, 1, 1), 10, (8, 1, 1)),
        ((1, 1, 1000), 10, (1, 1, 8)),
        ((0, 1000, 0), 3, (0, 3, 0)),
        ((7, 7, 7), 3, (1, 1, 1)),
    ],
)
def test_all_texts_lose_the_same_share(lengths: tuple[int, ...], room: int, expected: tuple[int, ...]) -> None:
    assert shorten(lengths, room) == expected


LENGTHS = st.lists(st.integers(0, 5000), min_size=1, max_size=6)


@given(LENGTHS, st.integers(0, 600))
def test_shortening_fills_the_room_and_never_lengthens(lengths: list[int], spare: int) -> None:
    room = len(lengths) + spare

    kept = shorten(lengths, room)

    assert sum(kept) == min(room, sum(lengths))
    for keep, length in zip(kept, lengths, strict=True):
        assert 0 <= keep <= length
        assert (keep > 0) == (length > 0)


@given(st.integers(0, 5000), st.integers(0, 5000), st.integers(2, 600))
def test_two_texts_are_shortened_as_the_published_bundle_was_trained(source: int, translation: int, room: int) -> None:
    kept = (source, translation)
    if source + translation > room:
        keep = round(source * room / (source + translation))
        keep = min(max(keep, min(source, 1)), room - min(translation, 1))
        kept = (keep, room - keep)

    assert shorten((source, translation), room) == kept


@given(st.lists(st.integers(100, 5000), min_size=1, max_size=3), st.integers(200, 600))
def test_no_text_is_more_than_a_token_off_its_share(lengths: list[int], room: int) -> None:
    # each share is well above 1 here, so that no text is kept alive at the cost of others
    share = min(1.0, room / sum(lengths))

    for keep, length in zip(shorten(lengths, room), lengths, strict=True):
        assert abs(keep - share * length) <= 1
