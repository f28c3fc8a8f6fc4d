"""The tapped decoder: a causal decoder cut above its tap, with a regression head on the last real token.

This is the one forward pass of the project: training runs it, and export wraps the very same module.

Shapes: B rows, S body tokens, P prefix tokens, H hidden size, G key/value heads, D head size, L blocks kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import AutoModel, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer
from transformers.utils import logging as transformers_logging

from qe_edge.errors import UsageError
from qe_edge.taps import blocks_kept, keeps_final_norm
from qe_edge_train import attention

FAMILIES = ("llama", "qwen2", "qwen3", "gemma3_text", "mistral", "phi3", "cohere")
"""`model_type` of the decoders whose taps and exports are tested; others are refused by name."""

KeyValues = list[tuple[Tensor, Tensor]]
"""Keys and values of every block, each [B or 1, G, P, D]."""


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
    assert isinstance(decoder.layers, nn.ModuleList)
    decoder.layers = decoder.layers[:keep]
    config.num_hidden_layers = keep
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:keep]
    if not keeps_final_norm(tap):
        decoder.norm = nn.Identity()
    return decoder


def attention_limit(decoder: PreTrainedModel) -> int:
    """The longest prompt, in tokens, for which every block of this decoder attends to all earlier tokens.

    Bounded by the position range and by a sliding window, where one is in use: inside it, windowed and full
    attention are the same, so one mask serves all blocks.
    """
    config = decoder.config
    limit = int(config.max_position_embeddings)
    window = getattr(config, "sliding_window", None)
    if window and getattr(config, "use_sliding_window", True):
        limit = min(limit, int(window))
    return limit


@dataclass(frozen=True)
class HeadOptions:
    """Shape and scale of a regression head."""

    hidden_size: int
    """number of features it reads"""
    layer_norm: bool
    """whether a LayerNorm comes before the linear layer"""
    bias: bool
    """whether the linear layer has a bias"""


class RegressionHead(nn.Module):
    """One linear map from a hidden state to a score, optionally after a LayerNorm, in float32.

    The linear output is in standard units; `shift` and `scale` bring it to the score scale (DA 0-100).
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, options: HeadOptions) -> None:
        super().__init__()
        self.options = options
        self.norm = nn.LayerNorm(options.hidden_size) if options.layer_norm else nn.Identity()
        self.linear = nn.Linear(options.hidden_size, 1, bias=options.bias)
        self.register_buffer("shift", torch.zeros(()))
        self.register_buffer("scale", torch.ones(()))

    def forward(self, state: Tensor) -> Tensor:
        """[B, H] -> scores [B] on the score scale, in float32 whatever the decoder computes in."""
        with torch.autocast(state.device.type, enabled=False):
            standard: Tensor = self.linear(self.norm(state.float())).squeeze(-1)
            return standard * self.scale + self.shift


class TappedRegressor(nn.Module):
    """A cut decoder and its head. `decoder` may be wrapped by peft; only its forward is used."""

    def __init__(self, decoder: nn.Module, head: RegressionHead) -> None:
        super().__init__()
        self.decoder = decoder
        self.head = head
        self.recomputes = False
        """whether training recomputes activations; then no keys and values are kept and no prefix can be shared"""

    def adapter(self) -> PeftModel:
        """The decoder with its adapter, which peft can save. Raises TypeError when there is no adapter."""
        if not isinstance(self.decoder, PeftModel):
            raise TypeError("this model has no adapter")
        return self.decoder

    def prefix(self, tokens: Tensor) -> KeyValues:
        """Keys and values of the shared prefix, tokens [1, P]; differentiable."""
        return self.states(tokens, None)[1]

    def states(self, tokens: Tensor, past: KeyValues | None) -> tuple[Tensor, KeyValues]:
        """Tapped hidden states [B, S, H] of tokens [B, S] after a prefix, and the keys and values up to there.

        `past` holds [1, G, P, D] or [B, G, P, D] for every block. Attention is causal and padding is on the right,
        so no real position ever sees padding.
        """
        batch, length = tokens.shape
        cache = None if self.recomputes and self.training else DynamicCache()
        if past is not None:
            assert cache is not None, "a prefix cannot be shared while activations are recomputed"
            for block, (key, value) in enumerate(past):
                shape = (batch, -1, -1, -1)
                cache.update(key.expand(shape), value.expand(shape), block)
        before = 0 if past is None else past[0][0].shape[2]
        position = torch.arange(length, device=tokens.device) + before  # [S]
        every = torch.arange(length + before, device=tokens.device)  # [P + S]
        visible = (every[None, :] <= position[:, None])[None, None]  # [1, 1, S, P + S]
        output = self.decoder(
            input_ids=tokens,
            attention_mask=visible,
            position_ids=position.expand(batch, -1),  # one row each: ONNX RotaryEmbedding does not broadcast
            past_key_values=cache,
            use_cache=cache is not None,
        )
        return output.last_hidden_state, [] if cache is None else _key_values(cache)

    def last_state(self, tokens: Tensor, last: Tensor, past: KeyValues | None) -> tuple[Tensor, KeyValues]:
        """Tapped hidden states [B, H] at position `last` [B] of tokens [B, S], and keys and values of every block."""
        hidden, present = self.states(tokens, past)
        rows = torch.arange(tokens.shape[0], device=tokens.device)
        return hidden[rows, last], present

    def forward(self, tokens: Tensor, last: Tensor, past: KeyValues | None) -> tuple[Tensor, KeyValues]:
        """Scores [B] read at position `last` [B] of tokens [B, S], and the keys and values of every block."""
        state, present = self.last_state(tokens, last, past)
        return self.head(state), present


def _key_values(cache: DynamicCache) -> KeyValues:
    """Keys and values of every block, [B, G, P + S, D]."""
    present: KeyValues = []
    for layer in cache.layers:
        assert isinstance(layer, DynamicLayer)
        assert layer.keys is not None
        assert layer.values is not None
        present.append((layer.keys, layer.values))
    return present


def load_decoder(base: str, dtype: torch.dtype, **options: object) -> PreTrainedModel:
    """The uncut decoder (no language-model head) of a hub id or a local folder."""
    transformers_logging.disable_progress_bar()  # it would run into the lines that report progress
    decoder = AutoModel.from_pretrained(base, dtype=dtype, attn_implementation=attention.NAME, **options)
    if not isinstance(decoder, PreTrainedModel):
        raise UsageError(f"{base}: not a decoder that transformers can load")
    return decoder
