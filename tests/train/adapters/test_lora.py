"""LoRA with a rank for every block: peft's own loader reads it, and every block has the same scale."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from peft import IA3Config, LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaModel, PreTrainedModel

from qe_edge.errors import InputError
from qe_edge_train.adapters import add_adapter, attach_adapter, holds_adapter, save_adapter, set_adapter
from qe_edge_train.adapters.lora import LINEAR_MAPS
from qe_edge_train.recipe import Adapter

TOKENS = torch.tensor([[5, 9, 33, 2], [7, 1, 8, 0]])
RANKS = [1, 6, 3, *[2] * 7, 5, 4]
"""Twelve blocks, so that block 1 must not be taken for block 10 or 11."""
OPTIONS = Adapter(kind="rank_per_block", rank=3, alpha=6)


def decoder() -> PreTrainedModel:
    torch.manual_seed(5)
    config = LlamaConfig(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=12,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    model = LlamaModel(config)
    model.eval()
    return model


def moved(model: nn.Module) -> nn.Module:
    """An adapter that does something."""
    torch.manual_seed(6)
    for name, weight in model.named_parameters():
        if "lora_B" in name or "experts_b" in name:
            nn.init.normal_(weight, std=0.3)
    return model.eval()


def output(model: nn.Module) -> Tensor:
    with torch.no_grad():
        state: Tensor = model(input_ids=TOKENS).last_hidden_state
    return state


def test_every_block_gets_its_rank_on_all_seven_maps_and_one_scale() -> None:
    adapted = add_adapter(decoder(), OPTIONS, RANKS)

    found: dict[int, set[int]] = {}
    maps = [(name, module) for name, module in adapted.named_modules() if isinstance(module, LoraLayer)]
    for name, module in maps:
        block = int(name.split("layers.")[1].split(".")[0])
        found.setdefault(block, set()).add(module.lora_A["default"].get_parameter("weight").shape[0])
        assert module.scaling["default"] == 6 / 3
    assert found == {block: {rank} for block, rank in enumerate(RANKS)}
    assert len(maps) == 12 * 7
    assert {name.rsplit(".", 1)[1] for name, _ in maps} == set(LINEAR_MAPS[:7])
    assert {name for name, p in adapted.named_parameters() if p.requires_grad} == {
        name for name, _ in adapted.named_parameters() if "lora_" in name
    }


def test_pefts_own_loader_reads_the_ranks_and_computes_the_same(tmp_path: Path) -> None:
    adapted = moved(add_adapter(decoder(), OPTIONS, RANKS))
    save_adapter(adapted, tmp_path)

    loaded = PeftModel.from_pretrained(decoder(), str(tmp_path)).eval()

    assert isinstance(LoraConfig.from_pretrained(str(tmp_path)), LoraConfig)
    assert (output(adapted) - output(decoder())).abs().max() > 0.1
    assert torch.equal(output(loaded), output(adapted))


def test_pefts_merge_gives_the_same_decoder_without_an_adapter(tmp_path: Path) -> None:
    adapted = moved(add_adapter(decoder(), OPTIONS, RANKS))
    expected = output(adapted)
    assert isinstance(adapted, PeftModel)

    torch.testing.assert_close(output(adapted.merge_and_unload()), expected, atol=1e-5, rtol=0)


def test_an_adapter_of_a_cut_decoder_fits_the_whole_one(tmp_path: Path) -> None:
    cut = decoder()
    assert isinstance(cut.layers, nn.ModuleList)
    cut.layers = cut.layers[:3]
    cut.config.num_hidden_layers = 3
    save_adapter(moved(add_adapter(cut, OPTIONS, RANKS[:3])), tmp_path)

    whole = PeftModel.from_pretrained(decoder(), str(tmp_path))

    blocks = {int(name.split("layers.")[1].split(".")[0]) for name, _ in whole.named_parameters() if "lora_" in name}
    assert blocks == {0, 1, 2}


@pytest.mark.parametrize(
    ("options", "counts"),
    [
        (Adapter(kind="lora", rank=4, alpha=8), [4] * 12),
        (OPTIONS, RANKS),
        (Adapter(kind="experts", rank=2, alpha=4), [1, 3, 2] * 4),
        (Adapter(kind="none"), []),
    ],
    ids=lambda value: value.kind if isinstance(value, Adapter) else "",
)
def test_every_kind_is_saved_attached_and_set_again(options: Adapter, counts: list[int], tmp_path: Path) -> None:
    adapted = moved(add_adapter(decoder(), options, counts))
    save_adapter(adapted, tmp_path)
    fresh = add_adapter(decoder(), options, counts).eval()
    untouched = output(fresh)

    attached = attach_adapter(decoder(), tmp_path).eval()
    set_adapter(fresh, tmp_path)

    assert holds_adapter(tmp_path) == (options.kind != "none")
    assert torch.equal(untouched, output(decoder()))  # a fresh adapter changes nothing
    assert torch.equal(output(adapted), untouched) == (options.kind == "none")
    assert torch.equal(output(attached), output(adapted))
    assert torch.equal(output(fresh), output(adapted))


@pytest.mark.parametrize("change", ["lacks one", "lacks a block", "holds more", "of a whole language model"])
def test_an_adapter_that_would_be_loaded_in_part_is_refused(change: str, tmp_path: Path) -> None:
    adapted = moved(add_adapter(decoder(), OPTIONS, RANKS))
    save_adapter(adapted, tmp_path)
    before = {name: weight.clone() for name, weight in load_file(tmp_path / "adapter_model.safetensors").items()}
    first = "base_model.model.layers.0.mlp.down_proj.lora_A.weight"
    after = {
        "lacks one": {name: weight for name, weight in before.items() if name != first},
        "lacks a block": {name: weight for name, weight in before.items() if ".layers.0." not in name},
        "holds more": {**before, first.replace("layers.0", "layers.12"): torch.ones(1, 24)},
        "of a whole language model": {name.replace("layers", "model.layers"): w for name, w in before.items()},
    }
    save_file(after[change], tmp_path / "adapter_model.safetensors")
    wrong = "holds .*layers.12.* no place in the decoder" if change == "holds more" else f"lacks {first}"

    with pytest.raises(InputError, match=rf"adapter_model\.safetensors: {wrong}.*; copy it again or train again$"):
        attach_adapter(decoder(), tmp_path)
    with pytest.raises(InputError, match=wrong):
        set_adapter(adapted, tmp_path)


def test_an_adapter_that_is_no_lora_is_refused(tmp_path: Path) -> None:
    other = get_peft_model(decoder(), IA3Config(target_modules=["q_proj"], feedforward_modules=[]))
    other.save_pretrained(str(tmp_path))

    with pytest.raises(
        InputError, match=r"adapter_config\.json: an adapter of peft's type IA3; only LoRA can be loaded"
    ):
        attach_adapter(decoder(), tmp_path)


def test_dropout_is_in_force_in_training_only() -> None:
    adapted = moved(add_adapter(decoder(), dataclasses.replace(OPTIONS, dropout=0.5), RANKS))

    still = output(adapted)
    adapted.train()

    assert not torch.equal(output(adapted), output(adapted))
    assert torch.equal(output(adapted.eval()), still)


def test_inputs_are_not_copied_to_float32_and_gradients_are_those_of_peft_to_the_last_bit() -> None:
    def gradients(model: nn.Module, casts: bool) -> list[Tensor]:
        for module in model.modules():
            if isinstance(module, LoraLayer):
                assert module.cast_input_dtype_enabled is False
                module.cast_input_dtype_enabled = casts
        with torch.autocast("cpu", dtype=torch.bfloat16):
            model(input_ids=TOKENS).last_hidden_state.float().square().sum().backward()
        return [weight.grad for weight in model.parameters() if weight.grad is not None]

    def adapted() -> nn.Module:
        plain = decoder()
        nn.Module.to(plain, torch.bfloat16)
        return moved(add_adapter(plain, OPTIONS, RANKS))

    ours, theirs = (gradients(adapted(), casts) for casts in (False, True))

    assert len(ours) == 2 * 7 * len(RANKS)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert all(grad.any() for grad in ours)
