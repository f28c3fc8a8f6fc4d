"""What chooses the best checkpoint: the mean Spearman over pairs, or how many held-out translations are found."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from scipy.stats import spearmanr
from tokenizers import Tokenizer

from qe_edge_train.alignment.parallel import ParallelSet
from qe_edge_train.batches import EncodedSet
from qe_edge_train.build import adapter_counts, base_facts, build_decoder, build_model
from qe_edge_train.data import Example
from qe_edge_train.evaluate import predict
from qe_edge_train.recipe import Alignment, Evaluation, ParallelText, Recipe
from qe_edge_train.selection import DevScores, Retrieval

CPU = torch.device("cpu")
ET, NE = ("Estonian", "English"), ("Nepali", "English")


def dev_set() -> EncodedSet:
    """Six rows of two pairs, with bodies of different ids."""
    pairs = {"et-en": ET, "ne-en": NE}
    examples = [Example(pair, names, ("s", "t"), float(10 * i)) for pair, names in pairs.items() for i in range(6)]
    bodies = [[3 + 7 * i, 11 + i, 5] for i in range(12)]
    return EncodedSet(examples, bodies, {ET: [1, 2], NE: [1, 4]})


def test_dev_scores_are_the_mean_over_pairs_of_scipys_spearman(recipe: Recipe) -> None:
    recipe = dataclasses.replace(recipe, evaluation=Evaluation(rows_per_pair=4))
    facts, data = base_facts(recipe.base), dev_set()
    model = build_model(recipe, facts, 3, adapter_counts(recipe, facts, 3), CPU)
    selection = DevScores(recipe, model, data, CPU)

    whole, sample = selection.measure(whole=True), selection.measure(whole=False)

    scores = predict(model, data, range(12), CPU)
    human = [example.score for example in data.examples]
    expected = [spearmanr(scores[rows], human[rows]).statistic for rows in (slice(0, 6), slice(6, 12))]
    assert whole.value == pytest.approx(sum(expected) / 2)
    assert whole.record["macro_spearman"] == whole.value
    assert whole.record["pairs"]["ne-en"]["spearman"] == pytest.approx(expected[1])
    assert [whole.record["pairs"][pair]["rows"] for pair in ("et-en", "ne-en")] == [6, 6]
    assert [sample.record["pairs"][pair]["rows"] for pair in ("et-en", "ne-en")] == [4, 4]
    assert f"mean Spearman {whole.value:.4f}" in whole.said


def held_out(other: tuple[str, ...]) -> ParallelSet:
    first = ("a house", "two big trees", "rivers", "stone upon stone")
    return ParallelSet(("en", "et"), {"en": first, "et": other}, (1, 2, 3, 4))


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (("a house", "two big trees", "rivers", "stone upon stone"), 1.0),
        # every sentence finds itself, and that is the translation of half of the lines only
        (("two big trees", "a house", "rivers", "stone upon stone"), 0.5),
    ],
)
def test_retrieval_is_the_share_of_translations_found(
    recipe: Recipe, tiny_base: Path, other: tuple[str, ...], expected: float
) -> None:
    texts = (ParallelText("en.txt", "en"), ParallelText("et.txt", "et"))
    recipe = dataclasses.replace(recipe, alignment=Alignment(layer=2, texts=texts))
    decoder = build_decoder(recipe, base_facts(recipe.base), 2, [4, 4], CPU)
    tokenizer = Tokenizer.from_file(str(tiny_base / "tokenizer.json"))
    selection = Retrieval(recipe, decoder, 2, held_out(other), tokenizer, 0, CPU)

    measured = selection.measure(whole=True)

    assert measured.value == pytest.approx(expected)
    assert measured.record["retrieval_accuracy"] == measured.value
    assert (measured.record["lines"], measured.record["layer"]) == (4, 2)
    low, high = measured.record["interval"]
    assert low <= measured.value <= high
    assert f"retrieval accuracy {expected:.4f} at layer 2" in measured.said
