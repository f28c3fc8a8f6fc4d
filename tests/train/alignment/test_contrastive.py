"""The alignment loss against a direct computation, and its gradients."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from qe_edge_train.alignment.contrastive import alignment_loss


def direct(source: Tensor, target: Tensor, temperature: float) -> float:
    """The formula, pair by pair, in plain Python."""
    total = 0.0
    for i, s in enumerate(source.tolist()):
        scores = [math.exp(cosine(s, t) / temperature) for t in target.tolist()]
        total -= math.log(scores[i] / sum(scores))
    return total / len(source)


def cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def test_two_pairs_worked_by_hand() -> None:
    # cosines: s1 t1 = 1, s1 t2 = .6, s2 t1 = 0, s2 t2 = .8; at temperature .2: 5, 3 and 0, 4
    source = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    target = torch.tensor([[1.0, 0.0], [3.0, 4.0]])
    forth = (math.log(1 + math.exp(3 - 5)) + math.log(1 + math.exp(0 - 4))) / 2
    back = (math.log(1 + math.exp(0 - 5)) + math.log(1 + math.exp(3 - 4))) / 2

    assert alignment_loss(source, target, 0.2).item() == pytest.approx(forth, rel=1e-5)
    assert alignment_loss(source, target, 0.2, symmetric=True).item() == pytest.approx((forth + back) / 2, rel=1e-5)


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.integers(2, 9), st.integers(2, 20), st.sampled_from([0.05, 0.1, 1.0]))
def test_the_loss_is_the_formula(seed: int, pairs: int, size: int, temperature: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    source, target = torch.randn(2, pairs, size, generator=generator)

    forth, back = direct(source, target, temperature), direct(target, source, temperature)

    assert alignment_loss(source, target, temperature).item() == pytest.approx(forth, rel=1e-4, abs=1e-5)
    both = alignment_loss(source, target, temperature, symmetric=True).item()
    assert both == pytest.approx((forth + back) / 2, rel=1e-4, abs=1e-5)


def test_gradients_reach_both_sides_and_a_step_along_them_lowers_the_loss() -> None:
    generator = torch.Generator().manual_seed(1)
    source, target = (torch.randn(6, 8, generator=generator, requires_grad=True) for _ in range(2))

    loss = alignment_loss(source, target, 0.1)
    loss.backward()

    assert source.grad is not None
    assert target.grad is not None
    assert source.grad.abs().max() > 0 < target.grad.abs().max()
    with torch.no_grad():
        assert alignment_loss(source - 0.1 * source.grad, target - 0.1 * target.grad, 0.1) < loss


def test_the_loss_is_in_float32_under_autocast() -> None:
    source, target = torch.randn(2, 4, 16, generator=torch.Generator().manual_seed(2))
    expected = alignment_loss(source, target, 0.1)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = alignment_loss(source, target, 0.1)
        coarse = alignment_loss(source.bfloat16(), target.bfloat16(), 0.1)

    assert loss.item() == expected.item()
    assert coarse.dtype == torch.float32
