"""Heads that start from the closed-form solution."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from qe_edge.errors import InputError
from qe_edge.prompt import Prompt
from qe_edge_train.batches import EncodedSet, encode
from qe_edge_train.build import adapter_counts, base_facts, build_model, kept_blocks, prompt_encoder
from qe_edge_train.data import load_examples
from qe_edge_train.evaluate import head_features, predict
from qe_edge_train.heads import Strategy
from qe_edge_train.objectives import TaskObjective
from qe_edge_train.probe.closed_form import fit_ridge
from qe_edge_train.recipe import Head, Recipe
from qe_edge_train.session import train_run
from qe_edge_train.warm_start import start_head

CPU = torch.device("cpu")
STRATEGIES: dict[Strategy, tuple[int, ...]] = {"single": (2,), "dynamic": (2, 3), "multi": (2, 3)}


def task(recipe: Recipe, tables: Path) -> tuple[TaskObjective, EncodedSet]:
    facts = base_facts(recipe.base)
    kept = kept_blocks(recipe, facts)
    model = build_model(recipe, facts, kept, adapter_counts(recipe, facts, kept), CPU)
    examples, _ = load_examples(recipe.train, "mean", tables, 1, Prompt(recipe.head.prompt))
    data = encode(examples, prompt_encoder(facts, recipe.head))
    return TaskObjective(recipe, model, data, CPU), data


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_head_gives_the_ridge_solution_before_any_training(
    recipe: Recipe, tables: Path, strategy: Strategy
) -> None:
    head = dataclasses.replace(recipe.head, strategy=strategy, taps=STRATEGIES[strategy], start="closed_form")
    objective, data = task(dataclasses.replace(recipe, head=head), tables)
    rows = list(range(len(data.examples)))

    start_head(objective)

    model = objective.model
    features = head_features(model, data, rows, CPU)
    human = np.array([example.score for example in data.examples])
    weights = objective.weights.double().numpy()
    fits = [fit_ridge(features[:, i], human, weights) for i in range(features.shape[1])]
    expected = np.mean([fit.predict(features[:, i]) for i, fit in enumerate(fits)], axis=0)
    np.testing.assert_allclose(predict(model, data, rows, CPU), expected, atol=1e-2)  # of scores up to 100
    assert np.corrcoef(expected, human)[0, 1] > 0.5


def test_a_run_with_few_steps_starts_where_the_closed_form_is(recipe: Recipe, tables: Path, tmp_path: Path) -> None:
    small = dataclasses.replace(recipe.optimiser, epochs=1, learning_rate=1e-6)
    scores = {}
    for start in ("random", "closed_form"):
        head = dataclasses.replace(recipe.head, start=start)
        run = train_run(
            dataclasses.replace(recipe, head=head, optimiser=small), tmp_path / start, tables, CPU, lambda _: None
        )
        scores[start] = run.facts.dev["macro_spearman"]

    assert scores["closed_form"] > scores["random"] + 0.2


def test_a_head_without_bias_cannot_start_there() -> None:
    with pytest.raises(InputError, match=r"start = 'closed_form' needs bias = true"):
        Head(start="closed_form")
