"""From a recipe to a trainable model: base, cut, adapter, head."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache

import torch
from bitsandbytes.nn.modules import Linear4bit
from tokenizers import Tokenizer
from torch import nn
from transformers import AutoConfig, AutoTokenizer, BitsAndBytesConfig, PreTrainedModel, PreTrainedTokenizerBase

from qe_edge.errors import InputError, UsageError
from qe_edge.metrics import FloatArray
from qe_edge.prompt import Prompt
from qe_edge.taps import blocks_kept
from qe_edge.tokens import Pair, PromptEncoder
from qe_edge_train.adapters import add_adapter, attach_adapter
from qe_edge_train.allocation.allocate import block_counts
from qe_edge_train.allocation.spectra import Estimator, block_alphas, load_unquantised
from qe_edge_train.decoder import (
    FAMILIES,
    attention_limit,
    cut_decoder,
    load_decoder,
    moving_positions,
    weights_sha256,
)
from qe_edge_train.guards import reason
from qe_edge_train.heads import HeadOptions, RegressionHead
from qe_edge_train.recipe import Base, Head, Recipe
from qe_edge_train.recipe.options import refuse
from qe_edge_train.run import Run
from qe_edge_train.tapped import TappedRegressor


@dataclass(frozen=True)
class BaseFacts:
    """What is known of a base before its weights are read."""

    family: str
    blocks: int
    hidden_size: int
    bos: int | None
    attention_limit: int
    """most tokens of a prompt: up to there every block attends to all earlier tokens"""
    tokenizer: Tokenizer
    moving_positions: str | None = None
    """type of rotary positions that change with the length of the prompt, and cannot be exported"""


def base_facts(base: Base) -> BaseFacts:
    """Configuration and tokenizer of a base. Raises UsageError when it cannot be loaded or is not supported."""
    part = "configuration"
    try:
        config = AutoConfig.from_pretrained(base.model)
        part = "tokenizer"
        tokenizer = AutoTokenizer.from_pretrained(base.model)
    except Exception as error:  # damaged files are any error to transformers and a bare Exception to tokenizers
        raise UsageError(
            f"base {base.model!r}: its {part} cannot be loaded: {reason(error)}; "
            "give a hub id or a local folder, or fetch it again"
        ) from None
    if config.model_type not in FAMILIES:
        raise UsageError(
            f"base {base.model!r}: decoder family {config.model_type!r} is not supported; "
            f"supported are {', '.join(FAMILIES)}"
        )
    if getattr(config, "quantization_config", None):
        raise UsageError(
            f"base {base.model!r}: its weights are quantised already; give the base as it was released "
            "([base] quantisation = 'nf4' trains it in 4 bits)"
        )
    _check_tokenizer(base.model, tokenizer, config.vocab_size)
    return BaseFacts(
        family=config.model_type,
        blocks=config.num_hidden_layers,
        hidden_size=config.hidden_size,
        bos=tokenizer.bos_token_id,
        attention_limit=attention_limit(config),
        tokenizer=tokenizer.backend_tokenizer,
        moving_positions=moving_positions(config),
    )


def _check_tokenizer(model: str, tokenizer: PreTrainedTokenizerBase, rows: int) -> None:
    """Raise UsageError for a tokenizer that cannot be written into a bundle, or whose ids an embedding of so many rows
    lacks. Added tokens may lie beyond it, as Gemma's for images do: a text never becomes one."""
    if not isinstance(getattr(tokenizer, "backend_tokenizer", None), Tokenizer):
        raise UsageError(
            f"base {model!r}: its {type(tokenizer).__name__} is not of the tokenizers library; "
            "a base with a tokenizer.json is needed"
        )
    most = max(tokenizer.backend_tokenizer.get_vocab_size(with_added_tokens=False), (tokenizer.bos_token_id or 0) + 1)
    if most > rows:
        raise UsageError(
            f"base {model!r}: its tokenizer has {most} tokens and its embedding {rows}: they are not of one model; "
            "fetch it again"
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
    decoder = load_decoder(base.model, dtype, **options)
    _keep_layout(decoder)
    if not options:
        nn.Module.to(decoder, device)
    decoder.requires_grad_(False)
    return cut_decoder(decoder, tap)


def _keep_layout(decoder: PreTrainedModel) -> None:
    """Keep 4-bit layers in the layout in which they are trained.

    On a CPU with AVX512-BF16, bitsandbytes 0.50 packs a layer anew when it first runs in evaluation mode and leaves it
    so in training mode, where a packed layer passes no gradient on; its values are rounded to bfloat16, too.
    """
    for module in decoder.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def check_limits(recipe: Recipe, facts: BaseFacts, task: bool = True) -> None:
    """Raise InputError when a token limit is beyond what every block of the base can attend to.

    task: whether the recipe's task is run, and not its alignment alone.
    """
    wanted = {"[head]": recipe.head.token_limit} if task else {}
    if recipe.alignment is not None:
        wanted["[alignment]"] = recipe.alignment.token_limit
    for table, tokens in wanted.items():
        refuse(
            tokens > facts.attention_limit,
            f"{table} token_limit = {tokens}: this base attends to at most {facts.attention_limit} tokens; lower it",
        )


def check_room(head: Head, facts: BaseFacts, pairs: Iterable[Pair]) -> None:
    """Raise InputError unless the token limit leaves room for texts after the prompt of every language pair."""
    encoder = prompt_encoder(facts, replace(head, token_limit=facts.attention_limit))
    for pair in pairs:
        fixed = encoder.fixed(pair)
        least = len(fixed.prefix) + sum(map(len, fixed.glue)) + len(encoder.prompt.fields)
        refuse(
            head.token_limit < least,
            f"[head] token_limit = {head.token_limit}: the prompt and a token of each text take {least}; raise it",
        )


def kept_blocks(recipe: Recipe, facts: BaseFacts) -> int:
    """Blocks that a recipe's run needs: up to its highest tap, and up to the aligned layer.

    Raises UsageError for a tap beyond the depth and InputError for an aligned layer that the taps cut off.
    """
    for tap in recipe.head.taps:
        blocks_kept(tap, facts.blocks)
    kept = blocks_kept(min(recipe.head.taps), facts.blocks)
    full = recipe.head.full_blocks
    refuse(full > kept, f"[head] full_blocks = {full}: the taps keep {kept} of {facts.blocks} blocks; lower it")
    if recipe.alignment is not None and aligned_layer(recipe, facts) > kept:
        raise InputError(
            f"[alignment] layer = {aligned_layer(recipe, facts)}: the taps keep {kept} of {facts.blocks} blocks, so "
            f"hidden_states[{kept}] is the last; lower the layer or tap higher"
        )
    if recipe.alignment is not None and 0 < full < aligned_layer(recipe, facts):
        raise InputError(
            f"[alignment] layer = {aligned_layer(recipe, facts)}: only {full} blocks run on all tokens of a sentence "
            "([head] full_blocks); align at or below that layer"
        )
    return kept


def aligned_layer(recipe: Recipe, facts: BaseFacts) -> int:
    """Index of the hidden state that is aligned. Raises InputError when the base has none of that index."""
    assert recipe.alignment is not None
    layer = recipe.alignment.layer or facts.blocks // 2
    if layer >= facts.blocks:
        raise InputError(
            f"[alignment] layer = {layer}: a base of {facts.blocks} blocks has un-normed layers 1 to {facts.blocks - 1}"
        )
    return layer


def adapter_counts(recipe: Recipe, facts: BaseFacts, kept: int) -> list[int]:
    """What the adapter gives each of the first `kept` blocks: ranks, 0 for a frozen one, or experts; empty without one.

    Allocation by alpha reads the spectra of the base's full-precision weights, before any quantisation. Raises
    UsageError when there is less to give than there are blocks, InputError when all of them are frozen.
    """
    adapter = recipe.adapter
    frozen = adapter.frozen_blocks
    refuse(
        frozen >= kept,
        f"[adapter] frozen_blocks = {frozen}: only {kept} blocks are kept, and one at least must learn; lower it",
    )
    if adapter.kind == "none":
        return []
    learning = kept - frozen
    if adapter.kind == "lora":
        return [0] * frozen + [adapter.rank] * learning
    total = round(adapter.experts * learning) if adapter.kind == "experts" else adapter.rank * learning
    chosen = adapter.allocation
    alphas = None
    if chosen.method == "alpha":
        alphas = _base_alphas(recipe.base.model, chosen.estimator)[frozen:kept]
    return [0] * frozen + block_counts(chosen.method, alphas, learning, total, chosen.beta)


@cache
def _base_alphas(model: str, estimator: Estimator) -> FloatArray:
    """Alpha of every block of an unquantised base; remembered, since a sweep asks for it again and again."""
    return block_alphas(load_unquantised(model), estimator)


def build_decoder(recipe: Recipe, facts: BaseFacts, kept: int, counts: list[int], device: torch.device) -> nn.Module:
    """The base cut to `kept` blocks with a fresh adapter, initialised from the recipe's seed."""
    torch.manual_seed(recipe.optimiser.seed)
    decoder = load_cut_decoder(recipe.base, facts.blocks - kept + 1, device)
    adapted = add_adapter(decoder, recipe.adapter, counts).to(device)
    if recipe.optimiser.gradient_checkpointing:
        decoder.activation_checkpointing_enable({"use_reentrant": False})
    return adapted


def build_model(
    recipe: Recipe, facts: BaseFacts, kept: int, counts: list[int], device: torch.device
) -> TappedRegressor:
    """The model to train on a task, on `device`, its adapter and head freshly initialised from the recipe's seed."""
    decoder = build_decoder(recipe, facts, kept, counts, device)
    head = RegressionHead(head_options(recipe.head, facts)).to(device)
    model = TappedRegressor(decoder, head, _full_blocks(recipe, kept))
    model.recomputes = recipe.optimiser.gradient_checkpointing
    return model


def _full_blocks(recipe: Recipe, kept: int) -> int:
    """Blocks that training runs on all positions, 0 for all.

    Nothing reads the other positions of the last block, so leaving them out changes no score; what balances experts or
    recomputes activations needs them all the same.
    """
    whole = recipe.adapter.kind == "experts" or recipe.optimiser.gradient_checkpointing
    return recipe.head.full_blocks or (0 if whole else kept - 1)


def head_options(head: Head, facts: BaseFacts) -> HeadOptions:
    """The shape of a recipe's head."""
    offsets = tuple(tap - min(head.taps) for tap in head.taps)
    return HeadOptions(facts.hidden_size, head.layer_norm, head.bias, head.strategy, offsets)


def check_base(run: Run) -> None:
    """Raise UsageError when the weights of a run's base are others than those of the training."""
    model, known = run.recipe.base.model, run.facts.base_sha256
    if known and weights_sha256(model) not in (known, ""):
        raise UsageError(
            f"base {model!r}: its weights are not those that {run.folder} was trained on (sha256 differs); "
            "fetch those again"
        )


def adapted_decoder(run: Run, device: torch.device, dtype: torch.dtype | None = None) -> nn.Module:
    """The cut decoder of a finished run with its adapter, unmerged, in evaluation mode.

    dtype: type of its weights, if not that of training; of a 4-bit base the dequantised values, which are what the
    adapter was trained against, the original weights being another model. Raises UsageError when the base cannot be
    loaded, or is not the one of the training.
    """
    base = run.recipe.base
    decoder = load_cut_decoder(base, run.facts.blocks_total - run.facts.blocks_kept + 1, device)
    check_base(run)
    if dtype is not None:
        if base.quantisation == "nf4":
            decoder = decoder.dequantize(dtype)
        nn.Module.to(decoder, dtype=dtype)
    return attach_adapter(decoder, run.adapter).requires_grad_(False).eval().to(device)
