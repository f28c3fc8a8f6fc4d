"""The refitted head undoes what quantisation does to every state alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from qe_edge_export import refit
from qe_edge_export.refit import refit_head
from qe_edge_train.heads import HeadOptions, RegressionHead, Strategy

Floats = NDArray[Any]


def trained_head(
    layer_norm: bool = True, bias: bool = True, strategy: Strategy = "single", taps: int = 1
) -> RegressionHead:
    torch.manual_seed(0)
    head = RegressionHead(HeadOptions(12, layer_norm, bias, strategy, tuple(range(taps))))
    with torch.no_grad():
        head.shift.fill_(60.0)
        head.scale.fill_(25.0)
        if layer_norm:
            for norm in head.norms:
                nn.init.uniform_(norm.get_parameter("weight"), 0.5, 1.5)
        if head.mix is not None:
            head.mix.theta.copy_(torch.linspace(-1, 1, taps))
    return head


def linear_of(head: RegressionHead) -> nn.Linear:
    (linear,) = head.linears
    assert isinstance(linear, nn.Linear)
    return linear


def scores_of(head: RegressionHead, states: Floats) -> Floats:
    with torch.no_grad():
        scores: Floats = head(torch.as_tensor(states, dtype=torch.float32)).numpy()
    return scores


def perturbed(rows: int, taps: int = 1, size: int = 12) -> tuple[Floats, Floats]:
    """True states [rows, taps, size] and the same ones moved by one linear map, an offset and a little noise."""
    random = np.random.default_rng(1)
    states = random.standard_normal((rows, taps, size))
    move = np.eye(size) + 0.15 * random.standard_normal((size, size))
    offset, noise = 0.2 * random.standard_normal(size), 0.02 * random.standard_normal(states.shape)
    return states, states @ move + offset + noise


@pytest.mark.parametrize("layer_norm", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_unseen_rows_come_closer_to_the_trained_scores(layer_norm: bool, bias: bool) -> None:
    head = trained_head(layer_norm, bias)
    states, moved = perturbed(400)
    targets = scores_of(head, states)
    refitted = refit_head(head, moved[:300], targets[:300])
    before = np.abs(scores_of(head, moved[300:]) - targets[300:]).mean()
    after = np.abs(scores_of(refitted, moved[300:]) - targets[300:]).mean()
    assert after < 0.6 * before


@pytest.mark.parametrize("strategy", ["dynamic", "multi"])
def test_heads_of_several_taps_come_closer_too(strategy: Strategy) -> None:
    head = trained_head(layer_norm=False, strategy=strategy, taps=2)
    states, moved = perturbed(400, taps=2)
    targets = scores_of(head, states)
    refitted = refit_head(head, moved[:300], targets[:300])
    before = np.abs(scores_of(head, moved[300:]) - targets[300:]).mean()
    after = np.abs(scores_of(refitted, moved[300:]) - targets[300:]).mean()
    assert after < 0.6 * before
    if head.mix is not None and refitted.mix is not None:
        assert torch.equal(refitted.mix.matrix(), head.mix.matrix())


def test_states_that_did_not_move_keep_the_trained_head() -> None:
    head = trained_head()
    states = np.random.default_rng(2).standard_normal((100, 1, 12))
    refitted = refit_head(head, states, scores_of(head, states))
    torch.testing.assert_close(linear_of(refitted).weight, linear_of(head).weight, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(linear_of(refitted).bias, linear_of(head).bias, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("penalty", [1e9, float("inf")])
def test_a_large_penalty_gives_the_trained_weights_back(monkeypatch: pytest.MonkeyPatch, penalty: float) -> None:
    monkeypatch.setattr(refit, "PENALTIES", (penalty,))
    head = trained_head(bias=False)
    states, moved = perturbed(100)
    refitted = refit_head(head, moved, scores_of(head, states))
    torch.testing.assert_close(linear_of(refitted).weight, linear_of(head).weight, rtol=1e-5, atol=1e-6)


def test_ridge_on_a_worked_example(monkeypatch: pytest.MonkeyPatch) -> None:
    # one feature x = 1 (five times) and -1 (five times), w0 = 1, targets 3x: gram 10, penalty 1 * trace / 1 = 10,
    # change = 10 * 2 / (10 + 10) = 1, so w = 2
    monkeypatch.setattr(refit, "PENALTIES", (1.0,))
    head = RegressionHead(HeadOptions(1, layer_norm=False, bias=False))
    with torch.no_grad():
        linear_of(head).weight.fill_(1.0)
    states = np.array([[[1.0]], [[-1.0]]] * 5)
    assert linear_of(refit_head(head, states, 3 * states[:, 0, 0])).weight.item() == pytest.approx(2)


def test_scale_and_norm_are_kept_and_the_trained_head_is_not_changed() -> None:
    head = trained_head()
    before = {name: value.clone() for name, value in head.state_dict().items()}
    states, moved = perturbed(100)
    refitted = refit_head(head, moved, scores_of(head, states)).state_dict()
    for name, value in head.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
        if not name.startswith("linears"):
            torch.testing.assert_close(refitted[name], value, rtol=0, atol=0)


def test_a_head_without_bias_stays_without() -> None:
    states, moved = perturbed(50)
    head = trained_head(bias=False)
    assert linear_of(refit_head(head, moved, scores_of(head, states))).bias is None


def test_too_few_rows_are_refused() -> None:
    states, moved = perturbed(9)
    head = trained_head()
    with pytest.raises(ValueError, match="9 rows: at least 10"):
        refit_head(head, moved, scores_of(head, states))
