"""Batches of sentence pairs: uniform over languages, no line twice, the same whatever came before."""

from __future__ import annotations

from collections import Counter

import pytest

from qe_edge.errors import InputError
from qe_edge_train.alignment.parallel import ParallelSet
from qe_edge_train.alignment.sampling import PairSampler


def parallel(lines: int = 40, languages: tuple[str, ...] = ("en", "et", "ne", "si")) -> ParallelSet:
    columns = {language: tuple(f"{language} {i}" for i in range(lines)) for language in languages}
    return ParallelSet(languages, columns, tuple(range(1, lines + 1)))


def test_every_other_language_every_direction_and_every_line_is_equally_likely() -> None:
    sampler = PairSampler(parallel(), "en", 8, seed=1)
    drawn = [pair for number in range(3000) for pair in sampler.batch(number)]

    others = Counter(pair.target if pair.source == "en" else pair.source for pair in drawn)
    sources = Counter(pair.source == "en" for pair in drawn)
    lines = Counter(pair.line for pair in drawn)

    assert others == {"et": 8000, "ne": 8000, "si": 8000}  # they take turns
    # 24,000 draws in 3000 batches; each bound is about five standard deviations of the count
    assert abs(sources[True] - 12000) < 1100
    assert len(lines) == 40
    assert all(abs(count - 600) < 110 for count in lines.values())


def test_every_pair_has_the_pivot_on_exactly_one_side() -> None:
    sampler = PairSampler(parallel(), "ne", 8, seed=1)

    for number in range(100):
        assert all((pair.source == "ne") != (pair.target == "ne") for pair in sampler.batch(number))


def test_a_batch_is_of_one_language_and_one_direction_and_languages_take_turns() -> None:
    sampler = PairSampler(parallel(), "en", 8, seed=1)
    batches = [sampler.batch(number) for number in range(30)]

    kinds = [{(pair.source, pair.target) for pair in batch} for batch in batches]
    assert all(len(kind) == 1 for kind in kinds)
    turns = [[next(iter(set(pair) - {"en"})) for kind in kinds[i : i + 3] for pair in kind] for i in range(0, 30, 3)]
    assert all(sorted(turn) == ["et", "ne", "si"] for turn in turns)
    assert len({tuple(turn) for turn in turns}) > 1


def test_no_line_occurs_twice_in_a_batch_even_when_it_holds_all_lines() -> None:
    sampler = PairSampler(parallel(lines=8), "en", 8, seed=1)

    for number in range(50):
        assert sorted(pair.line for pair in sampler.batch(number)) == list(range(8))


def test_a_batch_depends_on_seed_and_number_alone() -> None:
    one, other = PairSampler(parallel(), "en", 8, seed=1), PairSampler(parallel(), "en", 8, seed=1)
    before = [one.batch(number) for number in range(5)]

    assert other.batch(4) == before[4] == one.batch(4)
    assert len({tuple(batch) for batch in before}) == 5
    assert PairSampler(parallel(), "en", 8, seed=2).batch(4) != before[4]


def test_the_pivot_is_normalised_and_by_default_the_first_language() -> None:
    assert PairSampler(parallel(), "Nepali", 8, seed=1).pivot == "ne"
    assert PairSampler(parallel(), "", 8, seed=1).pivot == "en"
    assert PairSampler(parallel(), "", 8, seed=1).pairs == 40 * 3


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(InputError, match=r"pivot 'de' is not a language of the parallel texts \(en, et, ne, si\)"):
        PairSampler(parallel(), "de", 8, seed=1)
    with pytest.raises(InputError, match="pairs_per_batch = 41, but the parallel texts have 40 whole lines"):
        PairSampler(parallel(), "en", 41, seed=1)
