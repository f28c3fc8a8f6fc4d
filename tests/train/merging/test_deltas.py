"""Adapters added by their deltas: exact, loadable by peft, and without touching their sources."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import LlamaConfig, LlamaModel, PreTrainedModel

from qe_edge.errors import InputError
from qe_edge_train.adapters.lora import LINEAR_MAPS, add_lora, quiet_peft
from qe_edge_train.decoder import cut_decoder, load_decoder
from qe_edge_train.merging.deltas import block_of, combine, read_lora, write_lora
from qe_edge_train.tapped import hidden_states

TOKENS = torch.tensor([[3, 14, 15, 92, 65]])


def saved(wrapped: PeftModel, folder: Path, seed: int) -> Path:
    """Write an adapter whose matrices are all random: a fresh one has B = 0 and would change nothing."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    wrapped.save_pretrained(str(folder))
    return folder


@pytest.fixture
def task(tiny_base: Path, tmp_path: Path) -> Path:
    """Rank 3, alpha 7 on every linear map of all 4 blocks."""
    return saved(add_lora(load_decoder(str(tiny_base), torch.float32), [3] * 4, 7 / 3, 0.0), tmp_path / "task", 1)


@pytest.fixture
def aligner(tiny_base: Path, tmp_path: Path) -> Path:
    """The first two blocks alone, with ranks 2 and 5 of one scale, as rank_per_block makes them."""
    decoder = cut_decoder(load_decoder(str(tiny_base), torch.float32), 3)
    return saved(add_lora(decoder, [2, 5], 0.5, 0.0), tmp_path / "aligner", 2)


def weights(base: Path, adapter: Path | None) -> dict[str, Tensor]:
    """The linear maps of a base, with peft's own merge of an adapter."""
    decoder = load_decoder(str(base), torch.float32)
    if adapter is not None:
        with quiet_peft():
            merged = PeftModel.from_pretrained(decoder, str(adapter)).merge_and_unload()
        assert isinstance(merged, PreTrainedModel)
        decoder = merged
    return {name: tensor for name, tensor in decoder.state_dict().items() if name.split(".")[-2] in LINEAR_MAPS}


def deltas(base: Path, adapter: Path) -> dict[str, Tensor]:
    """What peft adds to every linear map for an adapter."""
    plain = weights(base, None)
    return {name: tensor - plain[name] for name, tensor in weights(base, adapter).items()}


@pytest.mark.parametrize(("first", "second"), [(0.5, 0.5), (0.3, 1.7), (1.0, -0.4)])
def test_the_merged_delta_is_the_weighted_sum_of_the_deltas(
    tiny_base: Path, task: Path, aligner: Path, tmp_path: Path, first: float, second: float
) -> None:
    write_lora(tmp_path / "merged", combine(read_lora(task), read_lora(aligner), first, second))

    ours, of_task, of_aligner = (deltas(tiny_base, folder) for folder in (tmp_path / "merged", task, aligner))

    assert len(ours) == 4 * 7
    for name, delta in ours.items():
        torch.testing.assert_close(delta, first * of_task[name] + second * of_aligner[name], atol=1e-6, rtol=0)
        assert delta.abs().max() > 1e-3
        assert (of_aligner[name].abs().max() > 0) == (block_of(name) < 2)


def test_each_delta_read_is_the_one_peft_adds(tiny_base: Path, task: Path, aligner: Path) -> None:
    for folder in (task, aligner):
        added = deltas(tiny_base, folder)
        for name, one in read_lora(folder).modules.items():
            torch.testing.assert_close(one.delta(), added[f"{name}.weight"], atol=1e-6, rtol=0)


def test_ranks_concatenate_and_maps_that_only_one_adapts_keep_theirs(task: Path, aligner: Path) -> None:
    merged = combine(read_lora(task), read_lora(aligner), 0.5, 0.5)

    assert merged.ranks(4) == [3 + 2, 3 + 5, 3, 3]
    torch.testing.assert_close(
        merged.modules["layers.3.mlp.up_proj"].delta(), 0.5 * read_lora(task).modules["layers.3.mlp.up_proj"].delta()
    )
    numbers = sum(tensor.numel() for folder in (task, aligner) for tensor in _tensors(folder).values())
    assert merged.parameters() == numbers


def test_weight_one_alone_reproduces_each_adapter_exactly(task: Path, aligner: Path, tmp_path: Path) -> None:
    for name, pair, source in (("a", (1.0, 0.0), task), ("b", (0.0, 1.0), aligner)):
        write_lora(tmp_path / name, combine(read_lora(task), read_lora(aligner), *pair))
        expected, found = read_lora(source), read_lora(tmp_path / name)
        assert _tensors(tmp_path / name).keys() == _tensors(source).keys()
        assert all(torch.equal(tensor, _tensors(source)[key]) for key, tensor in _tensors(tmp_path / name).items())
        assert {key: one.scale for key, one in found.modules.items()} == {
            key: one.scale for key, one in expected.modules.items()
        }


def test_the_merged_adapter_does_the_same_on_the_cut_and_the_whole_base(
    tiny_base: Path, task: Path, aligner: Path, tmp_path: Path
) -> None:
    merged = combine(read_lora(task), read_lora(aligner), 0.6, 0.4)
    write_lora(tmp_path / "whole", merged)
    write_lora(tmp_path / "cut", merged.of_blocks(2))
    whole, cut = (load_decoder(str(tiny_base), torch.float32) for _ in range(2))
    with quiet_peft(), torch.no_grad():
        on_whole = hidden_states(PeftModel.from_pretrained(whole, str(tmp_path / "whole")), TOKENS, [2])
        on_cut = hidden_states(PeftModel.from_pretrained(cut_decoder(cut, 3), str(tmp_path / "cut")), TOKENS, [2])
        plain = hidden_states(load_decoder(str(tiny_base), torch.float32), TOKENS, [2])

    torch.testing.assert_close(on_cut[0], on_whole[0], atol=1e-6, rtol=0)
    assert (on_cut[0] - plain[0]).abs().max() > 1e-2


def test_the_sources_stay_untouched(task: Path, aligner: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for folder in (task, aligner) for path in folder.iterdir()}

    write_lora(tmp_path / "merged", combine(read_lora(task), read_lora(aligner), 0.5, 0.5))

    assert {path: path.read_bytes() for folder in (task, aligner) for path in folder.iterdir()} == before


def test_patterns_of_rank_and_alpha_and_rank_stabilised_scales_are_followed(tiny_base: Path, tmp_path: Path) -> None:
    patterns = LoraConfig(
        r=2,
        lora_alpha=6,
        target_modules=["q_proj", "up_proj"],
        rank_pattern={r"layers\.1\..*": 4},
        alpha_pattern={"up_proj": 8},
    )
    stabilised = LoraConfig(r=4, lora_alpha=6, target_modules=["q_proj"], use_rslora=True)
    for name, config in (("patterns", patterns), ("stabilised", stabilised)):
        decoder = load_decoder(str(tiny_base), torch.float32)
        with quiet_peft():
            wrapped = get_peft_model(decoder, config)
        assert isinstance(wrapped, PeftModel)
        saved(wrapped, tmp_path / name, 3)

    read = read_lora(tmp_path / "patterns").modules
    found = {name: (one.rank, one.scale) for name, one in read.items() if block_of(name) in (0, 1)}
    assert found == {
        "layers.0.self_attn.q_proj": (2, 3.0),
        "layers.0.mlp.up_proj": (2, 4.0),
        "layers.1.self_attn.q_proj": (4, 1.5),
        "layers.1.mlp.up_proj": (4, 2.0),
    }
    assert read_lora(tmp_path / "stabilised").modules["layers.0.self_attn.q_proj"].scale == 3.0


def test_adapters_that_do_not_fit_are_refused(tiny_base: Path, task: Path, tmp_path: Path) -> None:
    decoder = LlamaModel(LlamaConfig.from_pretrained(tiny_base, intermediate_size=96))
    decoder.name_or_path = str(tiny_base)
    narrow = saved(add_lora(decoder, [2] * 4, 1.0, 0.0), tmp_path / "narrow", 1)
    mine = read_lora(task)

    with pytest.raises(
        InputError, match=r"^layers\.0\.mlp\.down_proj: .* different shapes, \[64, 128\] and \[64, 96\]"
    ):
        combine(mine, read_lora(narrow), 0.5, 0.5)
    with pytest.raises(InputError, match=r"trained on different bases, '.*' and 'another/base'"):
        combine(mine, dataclasses.replace(mine, base="another/base"), 0.5, 0.5)


def test_folders_that_hold_no_plain_lora_are_refused(task: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no LoRA adapter \(adapter_config.json and adapter_model.safetensors"):
        read_lora(tmp_path)

    tensors = _tensors(task)
    tensors["base_model.model.layers.0.input_layernorm.weight"] = torch.ones(64)
    save_file(tensors, task / "adapter_model.safetensors")
    with pytest.raises(InputError, match=r"holds base_model\.model\.layers\.0\.input_layernorm\.weight; only LoRA on"):
        read_lora(task)

    config = json.loads((task / "adapter_config.json").read_text())
    (task / "adapter_config.json").write_text(json.dumps(config | {"use_dora": True}))
    with pytest.raises(InputError, match=r"adapter_config\.json: only plain LoRA, without biases or DoRA"):
        read_lora(task)


def test_an_adapter_that_lacks_a_map_of_a_block_is_refused(task: Path, tmp_path: Path) -> None:
    mine = read_lora(task)
    write_lora(tmp_path / "written", mine)  # names its maps one by one, where `task` names blocks
    assert read_lora(tmp_path / "written").modules.keys() == mine.modules.keys()

    for folder in (task, tmp_path / "written"):
        whole = _tensors(folder)
        left = {name: tensor for name, tensor in whole.items() if ".layers.2.mlp.up_proj." not in name}
        save_file(left, folder / "adapter_model.safetensors")
        with pytest.raises(InputError, match=r"damaged \(lacks base_model\.model\.layers\.2\.mlp\.up_proj\.lora_A"):
            read_lora(folder)


def _tensors(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "adapter_model.safetensors")
