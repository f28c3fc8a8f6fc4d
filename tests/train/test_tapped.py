"""The tapped decoder is the base's own hidden state, and a shared prefix changes neither scores nor gradients."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModel

from qe_edge.errors import UsageError
from qe_edge_train.build import LINEAR_MAPS, add_adapter
from qe_edge_train.recipe import Lora
from qe_edge_train.tapped import HeadOptions, RegressionHead, TappedRegressor, cut_decoder, load_decoder

PREFIX = torch.tensor([[3, 9, 4, 27]])
TOKENS = torch.tensor([[11, 45, 6, 80, 0], [5, 9, 33, 2, 61]])
LAST = torch.tensor([3, 4])


def tapped(base: Path, tap: int) -> TappedRegressor:
    torch.manual_seed(1)
    decoder = cut_decoder(load_decoder(str(base), torch.float32), tap)
    model = TappedRegressor(add_adapter(decoder, Lora(rank=4)), RegressionHead(HeadOptions(64, True, True)))
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
        state, _ = cut.states(TOKENS, None)

    assert isinstance(cut.decoder.layers, torch.nn.ModuleList)
    assert len(cut.decoder.layers) == 4 - tap + 1
    torch.testing.assert_close(state, expected, atol=2e-6, rtol=1e-5)


def test_a_shared_prefix_gives_the_scores_and_gradients_of_whole_prompts(tiny_base: Path) -> None:
    model = tapped(tiny_base, 2)

    shared, _ = model(TOKENS, LAST, model.prefix(PREFIX))
    shared.square().sum().backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    whole, _ = model(torch.cat([PREFIX.expand(2, -1), TOKENS], 1), LAST + 4, None)
    whole.square().sum().backward()

    torch.testing.assert_close(shared, whole, atol=1e-6, rtol=1e-5)
    assert any("layers.0.self_attn.k_proj.lora_A" in name for name in gradients)
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(gradients[name], parameter.grad, atol=1e-5, rtol=1e-3)


def test_padding_and_neighbours_do_not_reach_a_row(tiny_base: Path) -> None:
    model = tapped(tiny_base, 2).eval()
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


def test_the_head_works_in_standard_units() -> None:
    head = RegressionHead(HeadOptions(2, layer_norm=False, bias=True))
    with torch.no_grad():
        head.linear.weight.copy_(torch.tensor([[1.0, -2.0]]))
        head.linear.bias.fill_(0.5)
    head.shift.fill_(60.0)
    head.scale.fill_(10.0)

    # 10 * (3 - 2 * 1 + .5) + 60 = 75
    assert head(torch.tensor([[3.0, 1.0]])).tolist() == [75.0]
