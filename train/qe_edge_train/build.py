"""From a recipe to a trainable model: base, cut, adapter, head."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer
from torch import nn
from transformers import AutoConfig, AutoTokenizer, BitsAndBytesConfig, PreTrainedModel

from qe_edge.errors import InputError, UsageError
from qe_edge.prompt import Prompt
from qe_edge.tokens import PromptEncoder
from qe_edge_train.recipe import Base, Head, Lora, Recipe
from qe_edge_train.tapped import (
    FAMILIES,
    HeadOptions,
    RegressionHead,
    TappedRegressor,
    attention_limit,
    cut_decoder,
    load_decoder,
)

LINEAR_MAPS = (
    *("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    *("qkv_proj", "gate_up_proj"),
)
"""The seven linear maps of a block; the last two are the fused forms of the Phi3 family."""


@dataclass(frozen=True)
class BaseFacts:
    """What is known of a base before its weights are read."""

    family: str
    blocks: int
    hidden_size: int
    bos: int | None
    tokenizer: Tokenizer


def base_facts(base: Base) -> BaseFacts:
    """Configuration and tokenizer of a base. Raises UsageError when it cannot be loaded or is not supported."""
    try:
        config = AutoConfig.from_pretrained(base.model)
        tokenizer = AutoTokenizer.from_pretrained(base.model)
    except (OSError, ValueError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise UsageError(
            f"base {base.model!r} cannot be loaded: {first_line}; give a hub id or a local folder"
        ) from None
    if config.model_type not in FAMILIES:
        raise UsageError(
            f"base {base.model!r}: decoder family {config.model_type!r} is not supported; "
            f"supported are {', '.join(FAMILIES)}"
        )
    return BaseFacts(
        family=config.model_type,
        blocks=config.num_hidden_layers,
        hidden_size=config.hidden_size,
        bos=tokenizer.bos_token_id,
        tokenizer=tokenizer.backend_tokenizer,
    )


def prompt_encoder(facts: BaseFacts, head: Head) -> PromptEncoder:
    """The encoder for training and evaluation."""
    return PromptEncoder(facts.tokenizer, Prompt(head.prompt), facts.bos, head.token_limit)


def load_cut_decoder(base: Base, tap: int, device: torch.device) -> PreTrainedModel:
    """The base's decoder as it is trained against: quantised or in its own type, cut above the tap, frozen.

    Raises UsageError when its weights cannot be loaded.
    """
    dtype = getattr(torch, base.dtype)
    options: dict[str, object] = {}
    if base.quantisation == "nf4":
        four_bit = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
        options = {"quantization_config": four_bit, "device_map": {"": device}}
    try:
        decoder = load_decoder(base.model, dtype, **options)
    except OSError as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(f"base {base.model!r}: its weights cannot be loaded: {reason}; fetch it again") from None
    if not options:
        nn.Module.to(decoder, device)
    decoder.requires_grad_(False)
    return cut_decoder(decoder, tap)


def add_adapter(decoder: PreTrainedModel, lora: Lora) -> PeftModel:
    """Put LoRA on the linear maps of every kept block. The block indices are recorded, so that peft loads the
    adapter onto the cut and onto the whole base alike."""
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        bias="none",
        target_modules=list(LINEAR_MAPS),
        layers_to_transform=list(range(decoder.config.num_hidden_layers)),
        layers_pattern="layers",
    )
    with warnings.catch_warnings():
        # transformers calls a deprecated property of its own while peft wraps the model
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        wrapped = get_peft_model(decoder, config)
    assert isinstance(wrapped, PeftModel)
    return wrapped


def build_model(recipe: Recipe, facts: BaseFacts, device: torch.device) -> TappedRegressor:
    """The model to train, on `device`, its adapter and head freshly initialised from the recipe's seed.

    Raises InputError when the token limit is beyond what every block can attend to.
    """
    torch.manual_seed(recipe.optimiser.seed)
    decoder = load_cut_decoder(recipe.base, recipe.head.tap, device)
    limit = attention_limit(decoder)
    if recipe.head.token_limit > limit:
        raise InputError(f"[head] token_limit = {recipe.head.token_limit}: this base attends to at most {limit} tokens")
    head = RegressionHead(HeadOptions(facts.hidden_size, recipe.head.layer_norm, recipe.head.bias))
    model = TappedRegressor(add_adapter(decoder, recipe.lora), head.to(device))
    if recipe.optimiser.gradient_checkpointing:
        decoder.activation_checkpointing_enable({"use_reentrant": False})
        model.recomputes = True
    return model
