"""LoRA through peft: one rank for all blocks, or a rank for every block."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from transformers import PreTrainedModel

LINEAR_MAPS = (
    *("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    *("qkv_proj", "gate_up_proj"),
)
"""The seven linear maps of a block; the last two are the fused forms of the Phi3 family."""


def add_lora(decoder: PreTrainedModel, ranks: Sequence[int], scale: float, dropout: float) -> PeftModel:
    """Put LoRA on the linear maps of blocks: block i gets rank ranks[i], none if that is 0; all the same alpha / rank.

    The block indices are recorded, so that peft loads the adapter onto the cut and onto the whole base alike.
    """
    most = max(ranks)
    uneven = [i for i, rank in enumerate(ranks) if rank not in (0, most)]
    patterns = {rf"layers\.{i}\..*": ranks[i] for i in uneven}
    config = LoraConfig(
        r=most,
        lora_alpha=scale * most,  # type: ignore[arg-type]  # peft only ever divides it by r
        rank_pattern=patterns,
        alpha_pattern={name: scale * rank for name, rank in patterns.items()},
        lora_dropout=dropout,
        bias="none",
        target_modules=list(LINEAR_MAPS),
        layers_to_transform=[i for i, rank in enumerate(ranks) if rank],
        layers_pattern="layers",
    )
    with quiet_peft():
        wrapped = get_peft_model(decoder, config)
    assert isinstance(wrapped, PeftModel)
    for module in wrapped.modules():
        if isinstance(module, LoraLayer):
            # peft would copy an input in bfloat16 to the adapter's float32, and autocast the copy back: 8 % of a step
            module.cast_input_dtype_enabled = False
    return wrapped


@contextmanager
def quiet_peft() -> Iterator[None]:
    """Without a deprecation of transformers' own that peft runs into while it wraps a model."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        yield
