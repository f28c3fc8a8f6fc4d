"""Decoders: which are supported, how one is loaded, cut above a tap, and how long its prompts may be."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from pickle import UnpicklingError
from typing import Literal

import torch
from peft import PeftModel
from safetensors import SafetensorError
from torch import nn
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.utils import CONFIG_NAME
from transformers.utils import logging as transformers_logging
from transformers.utils.hub import cached_file

from qe_edge.bundle import file_sha256
from qe_edge.errors import UsageError
from qe_edge.taps import blocks_kept, keeps_final_norm
from qe_edge_train import attention
from qe_edge_train.guards import reason

FAMILIES = ("llama", "qwen2", "qwen3", "gemma3_text", "mistral", "phi3", "cohere")
"""`model_type` of the decoders whose taps and exports are tested; others are refused by name."""


def load_decoder(base: str, dtype: torch.dtype | Literal["auto"], **options: object) -> PreTrainedModel:
    """The uncut decoder (no language-model head) of a hub id or a local folder.

    dtype: "auto" for the type that the weights are stored in. Raises UsageError when its weights cannot be loaded, lack
    one of the decoder's or do not fit its configuration: transformers would put random ones in their places.
    """
    transformers_logging.disable_progress_bar()  # it would run into the lines that report progress
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # of weights that do not fit it prints a table; they are refused below
    try:
        decoder, weights = AutoModel.from_pretrained(
            base,
            dtype=dtype,
            attn_implementation=attention.NAME,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **options,
        )
    except (OSError, ValueError, SafetensorError, UnpicklingError) as error:
        raise UsageError(_unloadable(base, reason(error))) from None
    finally:
        transformers_logging.set_verbosity(verbosity)
    if not isinstance(decoder, PreTrainedModel):
        raise UsageError(f"{base}: not a decoder that transformers can load")
    if getattr(decoder, "_hf_peft_config_loaded", False):
        raise UsageError(
            f"base {base!r}: holds an adapter_config.json, so transformers loads the model that it names with that "
            "adapter, and no weights from here; move the adapter to a folder of its own"
        )
    if weights["missing_keys"]:
        missing = min(weights["missing_keys"])
        raise UsageError(_unloadable(base, f"they lack {missing}, which its config.json asks for"))
    if weights["mismatched_keys"]:
        name, stored, needed = min(weights["mismatched_keys"])
        raise UsageError(_unloadable(base, f"{name} is {list(stored)}, but its config.json asks for {list(needed)}"))
    return decoder


def weights_sha256(base: str) -> str:
    """One sha256 of the files with the weights of a hub id or a local folder; empty where none is on this machine."""
    config = cached_file(base, CONFIG_NAME)
    assert config is not None  # it raises for a file that is not there
    folder = Path(config).parent
    files = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin"))
    return sha256("".join(map(file_sha256, files)).encode()).hexdigest() if files else ""


def _unloadable(base: str, why: str) -> str:
    return f"base {base!r}: its weights cannot be loaded: {why}; fetch it again"


def cut_decoder(decoder: PreTrainedModel, tap: int) -> PreTrainedModel:
    """Drop the blocks above TL-`tap`, in place, and the final norm unless the tap is TL-1.

    The last hidden state is then `hidden_states[-tap]` of the uncut decoder. Raises UsageError for a tap beyond the
    depth, for a decoder family that is not supported, and for a model whose attention is not causal.
    """
    config = decoder.config
    if config.model_type not in FAMILIES:
        raise UsageError(f"decoder family {config.model_type!r} is not supported; supported are {', '.join(FAMILIES)}")
    if getattr(config, "use_bidirectional_attention", False):
        raise UsageError(f"this {config.model_type} model attends to later tokens too; a causal decoder is needed")
    keep = blocks_kept(tap, config.num_hidden_layers)
    decoder.layers = blocks(decoder)[:keep]
    config.num_hidden_layers = keep
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:keep]
    if not keeps_final_norm(tap):
        decoder.norm = nn.Identity()
    return decoder


def plain_decoder(decoder: nn.Module) -> PreTrainedModel:
    """The decoder itself, out of peft's wrapping; adapters live in its blocks and stay in force."""
    inner = decoder.get_base_model() if isinstance(decoder, PeftModel) else decoder
    assert isinstance(inner, PreTrainedModel)
    return inner


def blocks(decoder: nn.Module) -> nn.ModuleList:
    """The blocks of a decoder, wrapped by peft or not."""
    layers = plain_decoder(decoder).layers
    assert isinstance(layers, nn.ModuleList)
    return layers


def attention_limit(config: PreTrainedConfig) -> int:
    """The longest prompt, in tokens, for which every block of a decoder attends to all earlier tokens.

    Bounded by the position range and by a sliding window, where one is in use: inside it, windowed and full
    attention are the same, so one mask serves all blocks.
    """
    limit = int(config.max_position_embeddings)
    window = getattr(config, "sliding_window", None)
    if window and getattr(config, "use_sliding_window", True):
        limit = min(limit, int(window))
    return limit


def moving_positions(config: PreTrainedConfig) -> str | None:
    """The type of a decoder's rotary positions if their frequencies change with the length of the prompt: no exported
    graph can hold them."""
    positions = config.rope_parameters
    groups = [positions, *(inner for inner in positions.values() if isinstance(inner, dict))]  # one a block type
    kinds = [group.get("rope_type") for group in groups]
    return next((kind for kind in kinds if kind in ("dynamic", "longrope")), None)
