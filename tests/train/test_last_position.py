"""Upper blocks on the last position: what they read, what they leave alone, and where they equal the whole decoder."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from qe_edge_train.adapters import add_adapter
from qe_edge_train.decoder import blocks, cut_decoder, load_decoder
from qe_edge_train.heads import HeadOptions, RegressionHead
from qe_edge_train.last_position import last_position_above
from qe_edge_train.recipe import Adapter
from qe_edge_train.tapped import TappedRegressor

PREFIX = torch.tensor([[3, 9, 4, 27]])
TOKENS = torch.tensor([[11, 45, 6, 80, 0], [5, 9, 33, 2, 61]])
LAST = torch.tensor([3, 4])


def tapped(base: Path, full: int, taps: tuple[int, ...] = (1,)) -> TappedRegressor:
    """4 blocks of which `full` run on all positions, with a random adapter; the same weights for any `full`."""
    torch.manual_seed(1)
    decoder = cut_decoder(load_decoder(str(base), torch.float32), 1)
    adapted = add_adapter(decoder, Adapter(rank=4), [4] * 4)
    offsets = tuple(tap - min(taps) for tap in taps)
    strategy = "single" if len(taps) == 1 else "multi"
    model = TappedRegressor(adapted, RegressionHead(HeadOptions(64, True, True, strategy, offsets)), full)  # type: ignore[arg-type]
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(weight, std=0.05)
    return model


def states(model: TappedRegressor) -> list[Tensor]:
    with torch.no_grad():
        return model.last_states(TOKENS, LAST, model.prefix(PREFIX))[0]


def test_the_last_block_alone_on_the_last_position_is_the_whole_decoder(tiny_base: Path) -> None:
    (upper,), (whole,) = states(tapped(tiny_base, 3)), states(tapped(tiny_base, 0))

    torch.testing.assert_close(upper, whole, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("full", [1, 2])
def test_keys_and_values_come_from_the_state_after_the_last_full_block(tiny_base: Path, full: int) -> None:
    """The same by hooks on the whole decoder: the key and value maps of upper blocks are given that state, normed."""
    model = tapped(tiny_base, full)
    (found,) = states(model)
    whole, seen = tapped(tiny_base, 0), {}
    every = blocks(whole.decoder)
    with ExitStack() as hooks:

        def watch(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            seen["state"] = arguments[0]

        hooks.callback(every[full].register_forward_pre_hook(watch).remove)
        for block in every[full:]:
            assert isinstance(block.self_attn, nn.Module)

            def lower(_: nn.Module, arguments: tuple[Tensor, ...], block: nn.Module = block) -> tuple[Tensor]:
                return (block.input_layernorm(seen["state"]),)  # type: ignore[operator]

            for name in ("k_proj", "v_proj"):
                hooks.callback(getattr(block.self_attn, name).register_forward_pre_hook(lower).remove)
        (expected,) = states(whole)

    torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-5)
    assert (found - states(whole)[0]).abs().max() > 1e-3


def test_taps_lie_on_both_sides_of_the_last_full_block(tiny_base: Path) -> None:
    upper, whole = states(tapped(tiny_base, 3, (1, 2, 3))), states(tapped(tiny_base, 0, (1, 2, 3)))

    for one, other in zip(upper, whole, strict=True):
        assert one.shape == (2, 64)
        torch.testing.assert_close(one, other, atol=2e-6, rtol=1e-5)


def test_every_block_runs_on_all_positions_again_after_an_error(tiny_base: Path) -> None:
    model = tapped(tiny_base, 0)
    (before,) = states(model)
    every = blocks(model.decoder)
    every[3].forward = every[3].forward  # as libraries do that wrap the forward of a module

    with pytest.raises(KeyError), last_position_above(every, 1, LAST):
        raise KeyError

    assert "forward" not in every[2].__dict__
    assert every[3].__dict__["forward"] == type(every[3]).forward.__get__(every[3])
    torch.testing.assert_close(states(model)[0], before, atol=0, rtol=0)
