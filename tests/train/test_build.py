"""From a recipe to a model: blocks kept, the aligned layer, what each block gets, and gradients through 4 bits."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from qe_edge.errors import InputError, UsageError
from qe_edge_train.build import (
    adapter_counts,
    aligned_layer,
    base_facts,
    build_decoder,
    check_limits,
    head_options,
    kept_blocks,
)
from qe_edge_train.recipe import Adapter, Alignment, Allocation, Base, Head, Recipe
from qe_edge_train.tapped import hidden_states

CPU = torch.device("cpu")
TOKENS = torch.tensor([[3, 9, 4, 27, 5], [11, 45, 6, 80, 2]])


def with_taps(recipe: Recipe, *taps: int) -> Recipe:
    return dataclasses.replace(recipe, head=Head(strategy="multi", taps=taps))


@pytest.mark.parametrize(
    ("taps", "kept", "offsets"), [((1,), 4, (0,)), ((3, 1), 4, (2, 0)), ((2, 4), 3, (0, 2)), ((4,), 1, (0,))]
)
def test_blocks_up_to_the_highest_tap_are_kept(
    recipe: Recipe, taps: tuple[int, ...], kept: int, offsets: tuple[int, ...]
) -> None:
    recipe, facts = with_taps(recipe, *taps), base_facts(recipe.base)

    assert kept_blocks(recipe, facts) == kept
    assert head_options(recipe.head, facts).offsets == offsets


def test_every_tap_must_lie_within_the_depth(recipe: Recipe) -> None:
    with pytest.raises(UsageError, match="tap TL-5 does not exist: a decoder of 4 blocks has TL-1 to TL-4"):
        kept_blocks(with_taps(recipe, 1, 5), base_facts(recipe.base))


def test_half_of_the_depth_is_aligned_if_no_layer_is_named(recipe: Recipe) -> None:
    facts = base_facts(recipe.base)

    assert aligned_layer(dataclasses.replace(recipe, alignment=Alignment()), facts) == 2
    assert aligned_layer(dataclasses.replace(recipe, alignment=Alignment(layer=3)), facts) == 3
    with pytest.raises(InputError, match="layer = 4: a base of 4 blocks has un-normed layers 1 to 3"):
        aligned_layer(dataclasses.replace(recipe, alignment=Alignment(layer=4)), facts)


def test_full_blocks_beyond_the_kept_ones_or_below_the_aligned_layer_are_refused(recipe: Recipe) -> None:
    facts = base_facts(recipe.base)
    head = Head(taps=(2,), full_blocks=2)
    assert kept_blocks(dataclasses.replace(recipe, head=head, alignment=Alignment(layer=2)), facts) == 3

    with pytest.raises(InputError, match=r"full_blocks = 4: the taps keep 3 of 4 blocks; lower it"):
        kept_blocks(dataclasses.replace(recipe, head=Head(taps=(2,), full_blocks=4)), facts)
    with pytest.raises(InputError, match=r"layer = 3: only 2 blocks run on all tokens of a sentence"):
        kept_blocks(dataclasses.replace(recipe, head=head, alignment=Alignment(layer=3)), facts)


@pytest.mark.parametrize(
    ("adapter", "counts"),
    [
        (Adapter(kind="none"), []),
        (Adapter(kind="lora", rank=5), [5, 5, 5]),
        (Adapter(kind="lora", rank=5, frozen_blocks=2), [0, 0, 5]),
        (Adapter(kind="rank_per_block", rank=4, frozen_blocks=1, allocation=Allocation("mola")), [0, 2, 6]),
        (Adapter(kind="rank_per_block", rank=5, allocation=Allocation("uniform")), [5, 5, 5]),
        (Adapter(kind="rank_per_block", rank=4, allocation=Allocation("mola")), [2, 4, 6]),
        # 2.5 experts a block are 8 of 3 blocks (7.5, halves to even)
        (Adapter(kind="experts", rank=8, experts=2.5, allocation=Allocation("uniform")), [3, 3, 2]),
        (Adapter(kind="experts", rank=8, experts=1.0), [1, 1, 1]),
    ],
)
def test_what_every_block_gets(recipe: Recipe, adapter: Adapter, counts: list[int]) -> None:
    recipe = dataclasses.replace(recipe, adapter=adapter)

    assert adapter_counts(recipe, base_facts(recipe.base), 3) == counts


def test_frozen_blocks_have_no_adapter_and_get_no_gradient(recipe: Recipe) -> None:
    recipe = dataclasses.replace(recipe, adapter=Adapter(rank=2, frozen_blocks=2))
    facts = base_facts(recipe.base)
    decoder = build_decoder(recipe, facts, 3, adapter_counts(recipe, facts, 3), CPU)

    (state,) = hidden_states(decoder, TOKENS, [3])
    state.square().mean().backward()

    learning = {name.split("layers.")[1][0] for name, weight in decoder.named_parameters() if weight.requires_grad}
    assert learning == {"2"}
    (below,) = hidden_states(decoder, TOKENS, [2])
    assert not below.requires_grad


def test_freezing_all_blocks_is_refused(recipe: Recipe) -> None:
    frozen = dataclasses.replace(recipe, adapter=Adapter(frozen_blocks=3))

    with pytest.raises(InputError, match=r"frozen_blocks = 3: only 3 blocks are kept"):
        adapter_counts(frozen, base_facts(frozen.base), 3)


@pytest.mark.parametrize("kind", ["lora", "experts"])
def test_four_bit_layers_pass_gradients_on_after_an_evaluation_too(recipe: Recipe, kind: str) -> None:
    four_bit = Base(model=recipe.base.model, quantisation="nf4", dtype="float32")
    recipe = dataclasses.replace(recipe, base=four_bit, adapter=Adapter(kind=kind, rank=2))  # type: ignore[arg-type]
    decoder = build_decoder(recipe, base_facts(recipe.base), 3, [2, 2, 2], CPU)
    for weight in decoder.parameters():
        if weight.requires_grad:
            nn.init.normal_(weight, std=0.05)

    def gradients() -> tuple[Tensor, dict[str, Tensor]]:
        decoder.train()
        (state,) = hidden_states(decoder, TOKENS, [3])
        state.square().mean().backward()
        found = {name: p.grad.clone() for name, p in decoder.named_parameters() if p.grad is not None}
        decoder.zero_grad()
        return state.detach(), found

    before, expected = gradients()
    decoder.eval()
    with torch.no_grad():
        (evaluated,) = hidden_states(decoder, TOKENS, [3])
    after, found = gradients()

    assert torch.equal(before, after)
    torch.testing.assert_close(evaluated, before, atol=1e-6, rtol=1e-5)
    assert len(found) == sum(p.requires_grad for p in decoder.parameters())
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, msg=name)


def test_token_limits_beyond_the_attention_of_the_base_are_refused(recipe: Recipe) -> None:
    facts = base_facts(recipe.base)  # 512 positions
    long = dataclasses.replace(recipe, head=dataclasses.replace(recipe.head, token_limit=513))
    aligned = dataclasses.replace(recipe, alignment=Alignment(token_limit=600))

    check_limits(recipe, facts)
    check_limits(long, facts, task=False)  # its task is not run
    with pytest.raises(InputError, match=r"\[head\] token_limit = 513: this base attends to at most 512 tokens"):
        check_limits(long, facts)
    for task in (True, False):
        with pytest.raises(InputError, match=r"\[alignment\] token_limit = 600: this base attends to at most 512"):
            check_limits(aligned, facts, task)
