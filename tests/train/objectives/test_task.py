"""The task's loss, worked by hand: weighted squared errors, of several heads their sum."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from qe_edge.errors import InputError
from qe_edge_train.allocation.allocate import block_counts
from qe_edge_train.batches import EncodedSet
from qe_edge_train.build import adapter_counts, base_facts, build_model
from qe_edge_train.data import Example
from qe_edge_train.evaluate import predict
from qe_edge_train.objectives import TaskObjective
from qe_edge_train.objectives.task import row_weights
from qe_edge_train.recipe import Adapter, Allocation, Head, Recipe, Target
from qe_edge_train.tapped import KeyValues, TappedRegressor
from tests.train.conftest import PROMPT

CPU = torch.device("cpu")
ET, NE = ("Estonian", "English"), ("Nepali", "English")


def rows() -> EncodedSet:
    """Eight rows of two pairs; scores of ne-en lie closer together."""
    examples = [Example("et-en", ET, ("s", "t"), 20.0 * i) for i in range(4)]
    examples += [Example("ne-en", NE, ("s", "t"), 5.0 * i) for i in range(4)]
    return EncodedSet(examples, [[3 + 5 * i, 9, 60 + i] for i in range(8)], {ET: [1, 2], NE: [1, 4, 6]})


def objective(recipe: Recipe) -> TaskObjective:
    facts = base_facts(recipe.base)
    kept = facts.blocks - min(recipe.head.taps) + 1
    model = build_model(recipe, facts, kept, adapter_counts(recipe, facts, kept), CPU)
    return TaskObjective(recipe, model, rows(), CPU)


def heads(recipe: Recipe, strategy: str, taps: tuple[int, ...]) -> Recipe:
    head = Head(strategy=strategy, taps=taps, bias=True, prompt=PROMPT, token_limit=400)  # type: ignore[arg-type]
    return dataclasses.replace(recipe, head=head)


def outputs(task: TaskObjective) -> torch.Tensor:
    """What every linear map says of every row, scored one by one with its whole prompt [8, M]."""
    parts = []
    for example, body in zip(task.data.examples, task.data.bodies, strict=True):
        tokens = torch.tensor([task.data.prefixes[example.names] + body])
        with torch.no_grad():
            parts.append(task.model.outputs(tokens, torch.tensor([tokens.shape[1] - 1]), None))
    return torch.cat(parts)


@pytest.mark.parametrize(("strategy", "taps"), [("single", (2,)), ("dynamic", (2, 4)), ("multi", (2, 3, 4))])
def test_a_steps_loss_is_the_sum_of_its_heads_squared_errors(
    recipe: Recipe, strategy: str, taps: tuple[int, ...]
) -> None:
    recipe = dataclasses.replace(heads(recipe, strategy, taps), target=Target(loss_weight=0.5, standardise=True))
    task = objective(recipe)
    human = torch.tensor([example.score for example in task.data.examples])
    by_hand = outputs(task)  # before the step: nothing moves in it but gradients

    step = task.run(0)

    assert by_hand.shape == (8, len(taps) if strategy == "multi" else 1)
    spread = human.std(correction=0)
    expected = 0.5 * ((by_hand - human[:, None]) / spread).square().mean(0).sum()
    assert len(task) == 2  # two epochs of one step of eight rows
    assert step.loss == pytest.approx(float(expected), rel=1e-4)
    assert step.tokens == 8 * 3


@pytest.mark.parametrize(("strategy", "taps"), [("single", (2,)), ("dynamic", (2, 4))])
def test_a_frozen_decoder_is_run_once_for_all_epochs_and_gives_the_same_losses(
    recipe: Recipe, strategy: str, taps: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen = dataclasses.replace(heads(recipe, strategy, taps), adapter=Adapter(kind="none"))
    torch.manual_seed(0)
    run_again = objective(frozen)
    run_again.frozen = False
    torch.manual_seed(0)
    run_once = objective(frozen)
    assert run_once.frozen
    expected = [run_again.run(step).loss for step in range(len(run_again))]
    calls = 0
    run = type(run_once.model).last_states

    def counted(self: TappedRegressor, tokens: Tensor, last: Tensor, past: KeyValues | None) -> object:
        nonlocal calls
        calls += 1
        return run(self, tokens, last, past)

    monkeypatch.setattr(TappedRegressor, "last_states", counted)
    losses = [run_once.run(step).loss for step in range(len(run_once))]

    assert losses == pytest.approx(expected, rel=1e-5)
    assert calls == 4  # prefix and batch of each pair, and no more in the second epoch
    for name, parameter in run_once.model.head.named_parameters():
        other = run_again.model.head.get_parameter(name)
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, other.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("strategy", "taps", "adapter", "depth"),
    [
        ("single", (1,), Adapter(rank=2, frozen_blocks=2), 2),
        ("single", (2,), Adapter(kind="rank_per_block", rank=2, frozen_blocks=1, allocation=Allocation("uniform")), 1),
        ("dynamic", (1, 3), Adapter(rank=2, frozen_blocks=3), 2),  # TL-3 reads the state after two of four blocks
    ],
)
def test_frozen_blocks_are_run_once_for_all_epochs_and_change_nothing(
    recipe: Recipe, strategy: str, taps: tuple[int, ...], adapter: Adapter, depth: int
) -> None:
    recipe = dataclasses.replace(heads(recipe, strategy, taps), adapter=adapter)
    run_again, run_once = objective(recipe), objective(recipe)
    assert run_once.depth == depth
    run_again.depth = 0
    for step in range(len(run_once)):
        assert run_once.run(step).loss == pytest.approx(run_again.run(step).loss, rel=1e-5)
        # what is trained moves between the steps, under both regressors at once
        for task in (run_once, run_again):
            with torch.no_grad():
                for parameter in task.model.parameters():
                    if parameter.grad is not None:
                        parameter.sub_(parameter.grad, alpha=0.05)
    trained = [(a, b) for a, b in zip(run_once.model.parameters(), run_again.model.parameters(), strict=True)]
    assert any(one.grad is not None and one.grad.abs().max() > 0 for one, _ in trained)
    for one, other in trained:
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_single_epoch_keeps_no_states_of_frozen_blocks(recipe: Recipe) -> None:
    once = dataclasses.replace(recipe.optimiser, epochs=1)
    adapter = Adapter(rank=2, frozen_blocks=1)

    assert objective(dataclasses.replace(recipe, adapter=adapter, optimiser=once)).depth == 0


def test_the_prediction_of_several_heads_is_their_mean(recipe: Recipe) -> None:
    task = objective(heads(recipe, "multi", (2, 3, 4)))
    task.model.eval()

    scores = predict(task.model, task.data, range(8), CPU)

    assert scores == pytest.approx(outputs(task).mean(1).numpy(), rel=1e-4)


def test_gradients_add_up_over_micro_batches(recipe: Recipe) -> None:
    task = objective(heads(recipe, "multi", (2, 4)))
    human = torch.tensor([example.score for example in task.data.examples])

    task.run(0)
    found = [parameter.grad.clone() for parameter in task.model.parameters() if parameter.grad is not None]
    task.model.zero_grad()
    error = torch.zeros(())
    for number, (example, body) in enumerate(zip(task.data.examples, task.data.bodies, strict=True)):
        tokens = torch.tensor([task.data.prefixes[example.names] + body])
        said = task.model.outputs(tokens, torch.tensor([tokens.shape[1] - 1]), None)
        error = error + ((said - human[number]) / task.model.head.scale).square().sum() / 8
    error.backward()  # loss_weight is 1 in this recipe

    expected = [parameter.grad for parameter in task.model.parameters() if parameter.grad is not None]
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4 * float(other.abs().max()), rtol=1e-3)


def test_a_pair_with_a_narrow_range_weighs_more() -> None:
    weights = row_weights(rows(), Target(balance="inverse_sd"))

    # spreads 4 : 1, so weights 1 : 4, with a mean of 1
    torch.testing.assert_close(weights, torch.tensor([0.4] * 4 + [1.6] * 4))
    assert row_weights(rows(), Target()).tolist() == [1.0] * 8


@pytest.mark.parametrize("standardise", [False, True])
def test_scores_from_which_nothing_can_be_learnt_are_refused(recipe: Recipe, standardise: bool) -> None:
    facts = base_facts(recipe.base)
    recipe = dataclasses.replace(recipe, target=Target(standardise=standardise))
    model = build_model(recipe, facts, 3, adapter_counts(recipe, facts, 3), CPU)
    several = rows()
    same = [dataclasses.replace(example, score=0.1) for example in several.examples]

    for examples in (same, same[:1]):
        with pytest.raises(InputError, match="without two different scores"):
            TaskObjective(recipe, model, dataclasses.replace(several, examples=examples), CPU)


def test_a_pair_of_one_score_cannot_be_balanced() -> None:
    same = [dataclasses.replace(one, score=0.1) if one.pair == "ne-en" else one for one in rows().examples]
    assert np.std([0.1] * 3) > 0  # a deviation would not tell

    with pytest.raises(InputError, match="all training scores of ne-en are the same"):
        row_weights(dataclasses.replace(rows(), examples=same[:7]), Target(balance="inverse_sd"))


def test_experts_add_their_balance_to_the_loss(recipe: Recipe) -> None:
    uneven = Allocation(method="mola")
    plain = Adapter(kind="experts", rank=2, alpha=4, experts=2.0, balance=0.0, allocation=uneven)
    without = objective(dataclasses.replace(recipe, adapter=plain)).run(0).loss

    balanced = objective(dataclasses.replace(recipe, adapter=dataclasses.replace(plain, balance=0.1))).run(0).loss

    # the balance of every routed layer is 1 when experts are used evenly, and at most their number
    routed = 7 * sum(count > 1 for count in block_counts("mola", None, 3, 6, 2.5))
    assert balanced - without > 0.1 * routed - 1e-3
    assert balanced - without < 0.1 * routed * 4


def test_a_shared_prefix_does_not_change_the_balance(recipe: Recipe) -> None:
    adapter = Adapter(kind="experts", rank=2, alpha=4, experts=3.0, balance=1.0)
    apart = dataclasses.replace(recipe.optimiser, share_prefix=False)

    losses = [
        objective(dataclasses.replace(recipe, adapter=adapter, optimiser=optimiser)).run(0).loss
        for optimiser in (recipe.optimiser, apart)
    ]

    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
