"""LoRA adapters as sums of low-rank matrices: read, combined by their deltas, and written for peft.

With weights w1 and w2 every linear map becomes W + w1 s1 B1 A1 + w2 s2 B2 A2, where s = alpha / rank is an adapter's
scale: the ranks concatenate. (Adding the matrices A and B themselves would be another model.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import sqrt
from pathlib import Path

import torch
from peft import LoraConfig
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME
from peft.utils.other import get_pattern_key
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from qe_edge.errors import InputError
from qe_edge_train.adapters import read_config
from qe_edge_train.guards import reading

PREFIX = "base_model.model."
"""What peft puts before the name of every module."""
PARTS = (".lora_A.weight", ".lora_B.weight")


@dataclass(frozen=True)
class LowRank:
    """What an adapter adds to the weight [out, in] of one linear map: scale * b a."""

    a: Tensor
    """[rank, in]"""
    b: Tensor
    """[out, rank]"""
    scale: float

    @property
    def rank(self) -> int:
        return len(self.a)

    @property
    def shape(self) -> tuple[int, int]:
        """Outputs and inputs of the linear map."""
        return self.b.shape[0], self.a.shape[1]

    def delta(self) -> Tensor:
        """[out, in]"""
        return self.scale * (self.b @ self.a)


@dataclass(frozen=True)
class LoraAdapter:
    """A LoRA adapter in memory, in float32 on the CPU."""

    base: str
    """model that it was trained on, as peft recorded it"""
    modules: Mapping[str, LowRank]
    """by the name of the linear map, as layers.0.mlp.up_proj"""

    def of_blocks(self, count: int) -> LoraAdapter:
        """The part of it that lies in the first `count` blocks."""
        return LoraAdapter(self.base, {name: one for name, one in self.modules.items() if block_of(name) < count})

    def ranks(self, blocks: int) -> list[int]:
        """The highest rank in each of the first `blocks` blocks, 0 where there is none."""
        highest = [0] * blocks
        for name, one in self.modules.items():
            highest[block_of(name)] = max(highest[block_of(name)], one.rank)
        return highest

    def parameters(self) -> int:
        """Numbers it holds."""
        return sum(one.a.numel() + one.b.numel() for one in self.modules.values())


def block_of(name: str) -> int:
    """The block that a linear map lies in: 3 for layers.3.mlp.up_proj."""
    parts = name.split(".")
    return int(parts[parts.index("layers") + 1])


def read_lora(folder: Path) -> LoraAdapter:
    """Read an adapter folder that peft wrote, with the rank and alpha of every module.

    Raises InputError for a folder without a LoRA adapter, for a damaged one, and for one that is more than low-rank
    matrices.
    """
    weights = folder / SAFETENSORS_WEIGHTS_NAME
    if not ((folder / CONFIG_NAME).is_file() and weights.is_file()):
        raise InputError(f"{folder}: holds no LoRA adapter ({CONFIG_NAME} and {SAFETENSORS_WEIGHTS_NAME})")
    config = read_config(folder)
    if not isinstance(config, LoraConfig) or config.use_dora or config.bias != "none":
        raise InputError(f"{folder / CONFIG_NAME}: only plain LoRA, without biases or DoRA, can be merged")
    with reading(weights, SafetensorError):
        tensors = load_file(weights)
    other = [name for name in tensors if not (name.startswith(PREFIX + "layers.") and name.endswith(PARTS))]
    if other:
        raise InputError(
            f"{weights}: holds {other[0]}; only LoRA on the linear maps of a decoder's blocks can be merged"
        )
    lacking = _adapted(config, tensors).difference(tensors)
    if lacking:
        raise InputError(
            f"{weights}: damaged (lacks {min(lacking)}, which its {CONFIG_NAME} asks for); copy it again or train again"
        )
    alphas = config.alpha_pattern or {}
    modules: dict[str, LowRank] = {}
    for key in sorted(tensors):
        if key.endswith(PARTS[0]):
            name = key.removeprefix(PREFIX).removesuffix(PARTS[0])
            with reading(weights, KeyError):
                a, b = (tensors[PREFIX + name + part].float() for part in PARTS)
            alpha = alphas.get(get_pattern_key(list(alphas), name), config.lora_alpha)
            modules[name] = LowRank(a, b, alpha / (sqrt(len(a)) if config.use_rslora else len(a)))
    return LoraAdapter(config.base_model_name_or_path or "", modules)


def _adapted(config: LoraConfig, tensors: Iterable[str]) -> set[str]:
    """The tensors that an adapter has where each of its blocks adapts the same linear maps, or all those that it names.

    Which maps the blocks of a base have is told from the tensors.
    """
    blocks, targets = config.layers_to_transform, config.target_modules or []
    if blocks is None:
        names = {name for name in targets if name.startswith("layers.")}
    else:
        inner = {name.removeprefix(PREFIX).split(".", 2)[2].rpartition(".lora_")[0] for name in tensors}
        names = {f"layers.{i}.{part}" for i in ([blocks] if isinstance(blocks, int) else blocks) for part in inner}
    return {PREFIX + name + part for name in names for part in PARTS}


def combine(first: LoraAdapter, second: LoraAdapter, weight: float, other_weight: float) -> LoraAdapter:
    """`weight` times the delta of the first adapter plus `other_weight` times that of the second.

    A linear map that only one adapts keeps that one's delta, weighted. An adapter of weight 0 is left out altogether:
    with weights 1 and 0 the result is the first adapter, exactly. Raises InputError for adapters of different bases and
    for maps of different shapes.
    """
    if first.base != second.base:
        raise InputError(f"the adapters were trained on different bases, {first.base!r} and {second.base!r}")
    for name in sorted(first.modules.keys() & second.modules.keys()):
        if first.modules[name].shape != second.modules[name].shape:
            shapes = f"{list(first.modules[name].shape)} and {list(second.modules[name].shape)}"
            raise InputError(f"{name}: the adapters are for linear maps of different shapes, {shapes}")
    weighted = [(adapter, factor) for adapter, factor in ((first, weight), (second, other_weight)) if factor != 0]
    modules: dict[str, LowRank] = {}
    for name in sorted(first.modules.keys() | second.modules.keys()):
        parts = [
            LowRank(one.a, one.b, factor * one.scale)
            for one, factor in ((adapter.modules.get(name), factor) for adapter, factor in weighted)
            if one is not None
        ]
        if parts:
            modules[name] = parts[0] if len(parts) == 1 else _concatenated(parts)
    return LoraAdapter(first.base, modules)


def write_lora(folder: Path, adapter: LoraAdapter) -> None:
    """Write an adapter so that `PeftModel.from_pretrained` loads it: every linear map by name, with its rank."""
    ranks = Counter(one.rank for one in adapter.modules.values())
    alphas = {name: one.scale * one.rank for name, one in adapter.modules.items()}
    rank, alpha = ranks.most_common(1)[0][0], Counter(alphas.values()).most_common(1)[0][0]
    config = LoraConfig(
        base_model_name_or_path=adapter.base,
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # peft only ever divides it by r
        rank_pattern={name: one.rank for name, one in adapter.modules.items() if one.rank != rank},
        alpha_pattern={name: own for name, own in alphas.items() if own != alpha},
        lora_dropout=0.0,
        bias="none",
        target_modules=list(adapter.modules),
        inference_mode=True,
    )
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(str(folder))
    tensors = {
        PREFIX + name + part: matrix.contiguous()
        for name, one in adapter.modules.items()
        for part, matrix in zip(PARTS, (one.a, one.b), strict=True)
    }
    save_file(tensors, folder / SAFETENSORS_WEIGHTS_NAME, metadata={"format": "pt"})


def _concatenated(parts: list[LowRank]) -> LowRank:
    """The sum of low-rank matrices as one whose rank is the sum of theirs, the scales moved into b."""
    return LowRank(torch.cat([one.a for one in parts]), torch.cat([one.scale * one.b for one in parts], 1), 1.0)
