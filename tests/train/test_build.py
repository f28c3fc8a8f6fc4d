"""From a recipe to a model: blocks kept, the aligned layer, what each block gets, and gradients through 4 bits."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from qe_edge.errors import InputError, UsageError
from qe_edge_train.adapters import save_adapter
from qe_edge_train.build import (
    adapter_counts,
    aligned_layer,
    base_facts,
    build_decoder,
    check_limits,
    check_room,
    head_options,
    kept_blocks,
)
from qe_edge_train.decoder import load_decoder
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


def test_a_prompt_beyond_the_token_limit_is_named_with_what_it_takes(recipe: Recipe) -> None:
    facts, pair = base_facts(recipe.base), ("Estonian", "English")
    least = len("<") + len("Estonian English: ") + len(" = ") + 2  # tokens are characters; <s> is the first
    head = Head(prompt="{sl} {tl}: {src} = {mt}", token_limit=least)

    check_room(head, facts, [pair])
    with pytest.raises(InputError, match=rf"\[head\] token_limit = {least - 1}: .* take {least}; raise it"):
        check_room(dataclasses.replace(head, token_limit=least - 1), facts, [pair])


@pytest.mark.parametrize(
    ("file", "change", "expected"),
    [
        ("config.json", {"quantization_config": {"quant_method": "bitsandbytes"}}, "its weights are quantised already"),
        ("config.json", {"vocab_size": 256}, "its tokenizer has 257 tokens and its embedding 256: .* not of one model"),
        ("tokenizer_config.json", {"tokenizer_class": "ByT5Tokenizer"}, "its ByT5Tokenizer is not of the tokenizers"),
    ],
)
def test_a_base_that_cannot_become_a_bundle_is_refused(
    tiny_base: Path, tmp_path: Path, file: str, change: dict[str, object], expected: str
) -> None:
    shutil.copytree(tiny_base, tmp_path / "base")
    path = tmp_path / "base" / file
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | change), encoding="utf-8")
    if file == "tokenizer_config.json":
        (tmp_path / "base" / "tokenizer.json").unlink()

    with pytest.raises(UsageError, match=expected):
        base_facts(Base(model=str(tmp_path / "base")))


def test_an_adapter_beside_the_weights_of_a_base_is_refused(tiny_base: Path, recipe: Recipe, tmp_path: Path) -> None:
    shutil.copytree(tiny_base, tmp_path / "base")
    adapted = build_decoder(recipe, base_facts(recipe.base), 4, [2] * 4, CPU)
    save_adapter(adapted, tmp_path / "base")

    with pytest.raises(UsageError, match=r"holds an adapter_config\.json.*; move the adapter to a folder of its own"):
        load_decoder(str(tmp_path / "base"), torch.float32)


def test_positions_that_cannot_be_exported_are_known_before_training(recipe: Recipe, tmp_path: Path) -> None:
    shutil.copytree(recipe.base.model, tmp_path / "base")
    path = tmp_path / "base" / "config.json"
    scaled = {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}}
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | scaled), encoding="utf-8")

    assert base_facts(recipe.base).moving_positions is None
    assert base_facts(Base(model=str(tmp_path / "base"))).moving_positions == "dynamic"
