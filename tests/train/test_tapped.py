"""The tapped decoder is the base's own hidden state, and a shared prefix changes neither scores nor gradients."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModel

from qe_edge.errors import UsageError
from qe_edge_train.adapters import LINEAR_MAPS, add_adapter
from qe_edge_train.decoder import blocks, cut_decoder, load_decoder
from qe_edge_train.heads import HeadOptions, RegressionHead
from qe_edge_train.recipe import Adapter
from qe_edge_train.tapped import TappedRegressor, hidden_states

PREFIX = torch.tensor([[3, 9, 4, 27]])
TOKENS = torch.tensor([[11, 45, 6, 80, 0], [5, 9, 33, 2, 61]])
LAST = torch.tensor([3, 4])


def tapped(base: Path, tap: int, full: int = 0) -> TappedRegressor:
    torch.manual_seed(1)
    decoder = cut_decoder(load_decoder(str(base), torch.float32), tap)
    adapted = add_adapter(decoder, Adapter(rank=4), [4] * (4 - tap + 1))
    model = TappedRegressor(adapted, RegressionHead(HeadOptions(64, True, True)), full)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
    return model


@pytest.mark.parametrize("tap", [1, 2, 4])
def test_a_cut_decoder_gives_the_hidden_state_of_the_whole_one(tiny_base: Path, tap: int) -> None:
    whole = AutoModel.from_pretrained(tiny_base, attn_implementation="eager")
    cut = TappedRegressor(
        cut_decoder(load_decoder(str(tiny_base), torch.float32), tap), RegressionHead(HeadOptions(64, False, False))
    )

    with torch.no_grad():
        expected = whole(TOKENS, output_hidden_states=True).hidden_states[-tap]
        (state,) = hidden_states(cut.decoder, TOKENS, cut.layers)

    assert isinstance(cut.decoder.layers, torch.nn.ModuleList)
    assert len(cut.decoder.layers) == 4 - tap + 1
    torch.testing.assert_close(state, expected, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("full", [0, 1])
def test_a_shared_prefix_gives_the_scores_and_gradients_of_whole_prompts(tiny_base: Path, full: int) -> None:
    model = tapped(tiny_base, 2, full)

    shared, _ = model(TOKENS, LAST, model.prefix(PREFIX))
    shared.square().sum().backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    whole, _ = model(torch.cat([PREFIX.expand(2, -1), TOKENS], 1), LAST + 4, None)
    whole.square().sum().backward()

    torch.testing.assert_close(shared, whole, atol=1e-6, rtol=1e-5)
    keys = "decoder.base_model.model.layers.{}.self_attn.k_proj.lora_A.default.weight"
    assert all(gradients[keys.format(block)].abs().max() > 0 for block in (0, 2))
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(gradients[name], parameter.grad, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("full", [0, 1])
def test_padding_and_neighbours_do_not_reach_a_row(tiny_base: Path, full: int) -> None:
    model = tapped(tiny_base, 2, full).eval()
    other = TOKENS.clone()
    other[0, 4] = 99  # padding of row 0
    other[1] = 7  # its neighbour

    with torch.no_grad():
        a, _ = model(TOKENS, LAST, model.prefix(PREFIX))
        b, _ = model(other, LAST, model.prefix(PREFIX))

    assert abs(a[0] - b[0]) < 1e-6
    assert abs(a[1] - b[1]) > 1e-4


def test_an_adapter_lies_on_the_seven_linear_maps_of_every_kept_block(tiny_base: Path) -> None:
    model = tapped(tiny_base, 3)
    names = {name.split(".lora_A")[0] for name, _ in model.named_parameters() if "lora_A" in name}

    assert len(names) == 2 * 7
    assert {name.rsplit(".", 1)[1] for name in names} == set(LINEAR_MAPS[:7])
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert all("lora_" in name or name.startswith("head.") for name in trainable)


def test_a_tap_beyond_the_depth_is_refused(tiny_base: Path) -> None:
    with pytest.raises(UsageError, match=r"tap TL-5 does not exist: a decoder of 4 blocks has TL-1 to TL-4"):
        cut_decoder(load_decoder(str(tiny_base), torch.float32), 5)


@pytest.mark.parametrize("taps", [(1, 3), (2, 4), (2, 3, 4)])
def test_several_taps_are_the_hidden_states_of_the_whole_decoder_in_their_order(
    tiny_base: Path, taps: tuple[int, ...]
) -> None:
    whole = AutoModel.from_pretrained(tiny_base, attn_implementation="eager")
    offsets = tuple(tap - min(taps) for tap in taps)
    head = RegressionHead(HeadOptions(64, False, False, "multi", offsets))
    cut = TappedRegressor(cut_decoder(load_decoder(str(tiny_base), torch.float32), min(taps)), head)

    with torch.no_grad():
        expected = whole(TOKENS, output_hidden_states=True).hidden_states
        at_once, _ = cut.last_states(TOKENS, LAST, None)
        prefix = cut.prefix(TOKENS[:, :2])
        after_prefix, _ = cut.last_states(TOKENS[:, 2:], LAST - 2, prefix)

    for tap, one, other in zip(taps, at_once, after_prefix, strict=True):
        state = expected[-tap][torch.arange(2), LAST]
        torch.testing.assert_close(one, state, atol=2e-6, rtol=1e-5)
        torch.testing.assert_close(other, state, atol=2e-6, rtol=1e-5)


def test_a_prefix_of_no_tokens_is_no_prefix(tiny_base: Path) -> None:
    model = tapped(tiny_base, 2).eval()

    with torch.no_grad():
        empty, _ = model(TOKENS, LAST, model.prefix(PREFIX[:, :0]))
        none, _ = model(TOKENS, LAST, None)

    torch.testing.assert_close(empty, none, atol=1e-6, rtol=0)


def test_hidden_states_below_an_adapter_carry_gradient_and_those_above_do_not(tiny_base: Path) -> None:
    decoder = add_adapter(load_decoder(str(tiny_base), torch.float32), Adapter(rank=4), [4] * 4)
    for name, weight in decoder.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)

    (state,) = hidden_states(decoder, TOKENS, [2])
    state.square().sum().backward()

    for name, parameter in decoder.named_parameters():
        if "lora_" in name:
            below = ".layers.0." in name or ".layers.1." in name
            assert (parameter.grad is not None and bool(parameter.grad.abs().max() > 0)) == below, name


def test_a_hidden_state_that_does_not_exist_is_refused_and_the_decoder_left_whole(tiny_base: Path) -> None:
    decoder = load_decoder(str(tiny_base), torch.float32)
    norm = decoder.norm

    with pytest.raises(ValueError, match="hidden state 5 of a decoder with 4 blocks"):
        hidden_states(decoder, TOKENS, [1, 5])

    assert len(blocks(decoder)) == 4
    assert decoder.norm is norm
