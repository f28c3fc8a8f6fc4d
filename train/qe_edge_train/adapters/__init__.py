"""Adapters of every kind, behind one set of functions: put on, saved, loaded.

lora, rank_per_block   peft's LoRA: adapter_config.json, adapter_model.safetensors (`lora.py`)
experts                routed mixtures of LoRA experts (`experts.py`)
none                   an empty folder
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftConfig, PeftModel, load_peft_weights, set_peft_model_state_dict
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME
from safetensors import SafetensorError
from torch import nn
from transformers import PreTrainedModel

from qe_edge.errors import InputError
from qe_edge_train.adapters import experts
from qe_edge_train.adapters.lora import LINEAR_MAPS, add_lora, quiet_peft
from qe_edge_train.guards import reading
from qe_edge_train.recipe import Adapter

__all__ = [
    "LINEAR_MAPS",
    "add_adapter",
    "attach_adapter",
    "holds_adapter",
    "read_config",
    "save_adapter",
    "set_adapter",
]


def add_adapter(decoder: PreTrainedModel, options: Adapter, counts: Sequence[int]) -> nn.Module:
    """Put a fresh adapter on a frozen decoder.

    counts: what each block gets: ranks, or experts; ignored by kind none (`allocation.block_counts` makes them).
    """
    if options.kind == "none":
        return decoder
    if options.kind == "experts":
        experts.add_experts(decoder, counts, options.rank, options.alpha, options.dropout)
        return decoder
    return add_lora(decoder, counts, options.alpha / options.rank, options.dropout)


def save_adapter(decoder: nn.Module, folder: Path) -> None:
    """Write the adapter of a decoder; nothing when it has none."""
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(decoder, PeftModel):
        decoder.save_pretrained(str(folder))
    elif experts.has_experts(decoder):
        experts.save_experts(decoder, folder)


def attach_adapter(decoder: PreTrainedModel, folder: Path) -> nn.Module:
    """A plain decoder with the adapter that a folder holds, unmerged; the decoder itself when it holds none.

    Raises InputError for an adapter that is damaged, incomplete or no LoRA, or does not fit the decoder.
    """
    if (folder / CONFIG_NAME).is_file():
        config = read_config(folder)
        if not isinstance(config, LoraConfig):
            kind = str(config.peft_type).rpartition(".")[2]
            raise InputError(f"{folder / CONFIG_NAME}: an adapter of peft's type {kind}; only LoRA can be loaded")
        with quiet_peft(), reading(folder / CONFIG_NAME, ValueError):  # peft's word for maps that the decoder lacks
            adapted = PeftModel(decoder, config)
        _fill(adapted, folder)
        return adapted
    if (folder / experts.CONFIG_FILE).is_file():
        experts.load_experts(decoder, folder)
    return decoder


def read_config(folder: Path) -> PeftConfig:
    """What peft wrote of an adapter. Raises InputError when it is damaged."""
    with reading(folder / CONFIG_NAME, ValueError, KeyError, TypeError):
        config: PeftConfig = PeftConfig.from_pretrained(str(folder))
        return config


def holds_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter, its description and its weights."""
    return any(
        all((folder / name).is_file() for name in names)
        for names in ((CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME), (experts.CONFIG_FILE, experts.WEIGHTS_FILE))
    )


def set_adapter(decoder: nn.Module, folder: Path) -> None:
    """Give the adapter that a decoder has the weights that `save_adapter` wrote.

    Raises InputError when they are damaged or do not fit.
    """
    if isinstance(decoder, PeftModel):
        _fill(decoder, folder)
    elif experts.has_experts(decoder):
        experts.set_experts(decoder, folder)


def _fill(adapted: PeftModel, folder: Path) -> None:
    """Give a LoRA the weights of a folder, every one: peft itself would leave those that it does not find as they are,
    and those that it has no place for out."""
    path = folder / SAFETENSORS_WEIGHTS_NAME
    # torch raises RuntimeError for weights that do not fit
    with reading(path, SafetensorError, RuntimeError):
        found: Any = set_peft_model_state_dict(adapted, load_peft_weights(str(folder), device="cpu"))
    lacking = [name for name in found.missing_keys if adapted.active_adapter in name.split(".")]
    wrong = [f"lacks {min(lacking).replace(f'.{adapted.active_adapter}', '')}"] if lacking else []
    wrong += [f"holds {min(found.unexpected_keys)}, which has no place in the decoder"] if found.unexpected_keys else []
    if wrong:
        raise InputError(
            f"{path}: {' and '.join(wrong)}: damaged, or of another {CONFIG_NAME}, base or tap; "
            "copy it again or train again"
        )
