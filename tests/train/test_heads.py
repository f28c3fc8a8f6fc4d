"""Regression heads: scores worked by hand for every strategy, and gradients for everything that is learnt."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from qe_edge_train.heads import HeadOptions, RegressionHead, Strategy

STATES = torch.tensor([[[3.0, 1.0], [0.0, 4.0]]])
"""One row, two taps, hidden size 2."""


def head(strategy: Strategy, taps: int, layer_norm: bool = False, bias: bool = False, size: int = 2) -> RegressionHead:
    torch.manual_seed(2)
    return RegressionHead(HeadOptions(size, layer_norm, bias, strategy, tuple(range(taps))))


def set_linear(head: RegressionHead, number: int, weights: list[float], bias: float | None = None) -> None:
    linear = head.linears[number]
    assert isinstance(linear, nn.Linear)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([weights]))
        if bias is not None:
            linear.bias.fill_(bias)


def set_units(head: RegressionHead) -> None:
    head.shift.fill_(60.0)
    head.scale.fill_(10.0)


def test_a_single_head_is_one_linear_map_in_standard_units() -> None:
    single = head("single", 1, bias=True)
    set_linear(single, 0, [1.0, -2.0], 0.5)
    set_units(single)

    # 10 * (3 - 2 * 1 + .5) + 60
    assert single(STATES[:, :1]).tolist() == [75.0]


def test_dynamic_weighting_at_first_is_the_mean_of_the_states() -> None:
    dynamic = head("dynamic", 2)
    set_linear(dynamic, 0, [1.0, 2.0])
    assert dynamic.mix is not None

    assert dynamic.mix.theta.tolist() == [1.0, 1.0]
    # mean state (1.5, 2.5): 1.5 + 2 * 2.5
    assert dynamic(STATES).item() == pytest.approx(6.5)


def test_dynamic_weighting_mixes_by_the_softmax_of_theta() -> None:
    dynamic = head("dynamic", 2)
    set_linear(dynamic, 0, [1.0, 2.0])
    set_units(dynamic)
    assert dynamic.mix is not None
    with torch.no_grad():
        dynamic.mix.theta.copy_(torch.tensor([3.0, 1.0]).log())  # softmax: 3/4, 1/4
        # A = 1 + M / sqrt(2)
        dynamic.mix.changes[0].copy_(2**0.5 * torch.tensor([[0.0, 2.0], [0.0, 0.0]]))
        dynamic.mix.changes[1].copy_(2**0.5 * torch.tensor([[-1.0, 1.0], [-1.0, -1.0]]))

    # A_0 (3, 1) = (5, 1); A_1 (0, 4) = (4, 0); h = 3/4 (5, 1) + 1/4 (4, 0) = (4.75, .75); 10 * (4.75 + 1.5) + 60
    assert dynamic(STATES).item() == pytest.approx(122.5)


def test_several_heads_score_apart_and_their_mean_counts() -> None:
    multi = head("multi", 2, bias=True)
    set_linear(multi, 0, [1.0, -2.0], 0.5)
    set_linear(multi, 1, [1.0, 1.0], -1.0)
    set_units(multi)

    # 10 * (3 - 2 + .5) + 60 = 75; 10 * (0 + 4 - 1) + 60 = 90
    assert multi.outputs(STATES).tolist() == [[75.0, 90.0]]
    assert multi(STATES).tolist() == [82.5]


def test_every_head_has_a_norm_of_its_own() -> None:
    multi = head("multi", 2, layer_norm=True)
    set_linear(multi, 0, [1.0, 0.0])
    set_linear(multi, 1, [1.0, 0.0])
    with torch.no_grad():
        multi.norms[1].get_parameter("weight").fill_(3.0)

    # two numbers a, b after a norm are +1, -1 or the reverse
    torch.testing.assert_close(multi.outputs(STATES), torch.tensor([[1.0, -3.0]]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("strategy", ["single", "dynamic", "multi"])
def test_everything_that_is_learnt_gets_a_gradient(strategy: Strategy) -> None:
    learnt = head(strategy, 1 if strategy == "single" else 3, layer_norm=True, bias=True, size=8)
    states = torch.randn(4, len(learnt.options.offsets), 8)

    learnt.outputs(states).square().sum().backward()

    named = dict(learnt.named_parameters())
    # dynamic: theta and three matrices; every linear map: weight and bias, and those of its norm
    assert len(named) == {"single": 4, "dynamic": 4 + 4, "multi": 3 * 4}[strategy]
    for name, parameter in named.items():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("layer_norm", [True, False])
@pytest.mark.parametrize(("strategy", "taps"), [("single", 1), ("dynamic", 3), ("multi", 3)])
def test_the_readout_says_what_the_head_computes_and_can_be_set_again(
    strategy: Strategy, taps: int, layer_norm: bool, bias: bool
) -> None:
    first = head(strategy, taps, layer_norm, bias, size=8)
    set_units(first)
    states = torch.randn(5, taps, 8)

    weights, level = first.readout()
    by_hand = (first.features(states) * weights).sum((1, 2)) + (0.0 if level is None else level)
    other = RegressionHead(first.options)
    other.load_state_dict(first.state_dict())
    for linear in other.linears:
        linear.apply(lambda part: part.reset_parameters() if isinstance(part, nn.Linear) else None)
    changed = other(states)
    other.set_readout(weights, level)

    assert weights.shape == (taps if strategy == "multi" else 1, 8)
    assert (level is None) == (not bias)
    torch.testing.assert_close(by_hand * 10 + 60, first(states), atol=1e-4, rtol=1e-5)
    assert (changed - first(states)).abs().max() > 0.1
    torch.testing.assert_close(other(states), first(states), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize(("strategy", "taps"), [("single", 1), ("dynamic", 2), ("multi", 2)])
def test_a_head_computes_in_float32_under_autocast(strategy: Strategy, taps: int) -> None:
    precise = head(strategy, taps, size=64)
    states = torch.randn(3, taps, 64)

    expected: Tensor = precise(states)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = precise(states)

    assert scores.dtype == torch.float32
    assert torch.equal(scores, expected)
