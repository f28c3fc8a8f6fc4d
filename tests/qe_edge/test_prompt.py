"""The prompt: the published words, split into prefix and body, and fair shortening."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qe_edge.errors import InputError
from qe_edge.prompt import Prompt, shorten


def test_the_pieces_join_to_the_published_prompt() -> None:
    prompt = Prompt()
    middle, end = prompt.glue("Estonian", "English")

    # arXiv 2508.07484; one line, trailing space included
    assert prompt.prefix("Estonian", "English") + "SRC" + middle + "MT" + end == (
        "Score the following translation from Estonian to English on a continuous scale from 0 to 100, where a score "
        'of zero means "no meaning preserved" and score of one hundred means "perfect meaning and grammar". '
        'Estonian source: "SRC" English translation: "MT" Score: '
    )


def test_braces_in_language_names_are_not_fields() -> None:
    assert Prompt("{sl} {src} {mt}").prefix("{tl}", "English") == "{tl} "


@pytest.mark.parametrize("template", ["", "{src}", "{mt} {src}", "{src} {mt} {mt}", "{src} {mt} {score}"])
def test_a_template_without_exactly_the_two_texts_in_order_is_refused(template: str) -> None:
    with pytest.raises(InputError, match="needs"):
        Prompt(template)


@pytest.mark.parametrize(
    ("source", "translation", "room", "expected"),
    [
        (3, 4, 7, (3, 4)),  # fits
        (10, 10, 10, (5, 5)),  # equal shares
        (30, 10, 20, (15, 5)),  # both lose half
        (1, 1000, 10, (1, 9)),  # the short side keeps a token
        (1000, 1, 10, (9, 1)),
        (0, 20, 10, (0, 10)),
    ],
)
def test_both_sides_lose_the_same_share(source: int, translation: int, room: int, expected: tuple[int, int]) -> None:
    assert shorten(source, translation, room) == expected


@given(st.integers(0, 5000), st.integers(0, 5000), st.integers(2, 600))
def test_shortening_fills_the_room_and_never_lengthens(source: int, translation: int, room: int) -> None:
    kept_source, kept_translation = shorten(source, translation, room)

    assert 0 <= kept_source <= source
    assert 0 <= kept_translation <= translation
    assert kept_source + kept_translation == min(room, source + translation)
    assert (kept_source > 0) == (source > 0)
    assert (kept_translation > 0) == (translation > 0)
