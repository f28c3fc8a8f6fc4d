"""QLoRA as most would write it with transformers, peft and bitsandbytes: what qe-edge's loop is compared with.

Whole prompts in batches padded to their longest, in random order; the whole decoder, with a hook that reads the tapped
layer; a linear head on the last token's state; mean squared error on standardised scores.
"""

from __future__ import annotations

import random
from argparse import Namespace
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer, BitsAndBytesConfig

from benchmarks.gpu.training_case import Case, Clock, Trained, case_recipe, training_examples
from qe_edge.prompt import Prompt
from qe_edge_train.data import Example
from qe_edge_train.recipe import Recipe

SEVEN_MAPS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class TappedDecoder(nn.Module):
    """An uncut decoder with adapters, and a linear head on what a hook reads at TL-k."""

    def __init__(self, decoder: Any, tap: int) -> None:
        super().__init__()
        self.decoder = decoder
        self.head = nn.Linear(decoder.config.hidden_size, 1, device=decoder.device)
        self.state: Tensor | None = None
        layers = decoder.get_base_model().layers
        layers[len(layers) - tap].register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, arguments: Any, output: Any) -> None:
        self.state = output[0] if isinstance(output, tuple) else output

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Scores [B] of prompts [B, S], padded on the right."""
        self.decoder(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
        assert self.state is not None
        last = attention_mask.sum(1) - 1
        picked = self.state[torch.arange(len(last), device=last.device), last]
        scores: Tensor = self.head(picked.float()).squeeze(1)
        return scores


def build(recipe: Recipe, case: Case, device: torch.device) -> TappedDecoder:
    """The base in NF4 with a fresh LoRA, as peft's guide to quantised training has it."""
    four_bit = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    decoder = AutoModel.from_pretrained(
        recipe.base.model, dtype=torch.bfloat16, quantization_config=four_bit, device_map={"": device}
    )
    decoder = prepare_model_for_kbit_training(decoder, use_gradient_checkpointing=False)
    if case.checkpointing:
        decoder.activation_checkpointing_enable({"use_reentrant": False})
    options = recipe.adapter
    lora = LoraConfig(r=options.rank, lora_alpha=options.alpha, lora_dropout=options.dropout, target_modules=SEVEN_MAPS)
    (tap,) = recipe.head.taps
    return TappedDecoder(get_peft_model(decoder, lora), tap)


def make_optimiser(parameters: Sequence[nn.Parameter], rate: float, paged: bool) -> torch.optim.Optimizer:
    """Paged AdamW of bitsandbytes, or torch's."""
    if paged:
        from bitsandbytes.optim.adamw import PagedAdamW32bit

        optimiser: torch.optim.Optimizer = PagedAdamW32bit(parameters, lr=rate, weight_decay=0.0)
        return optimiser
    return torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0, fused=True)


def batches(
    recipe: Recipe, examples: Sequence[Example], case: Case, device: torch.device
) -> Iterator[tuple[Any, Tensor]]:
    """Tokenised prompts and standardised scores [B], in random order."""
    tokenizer = AutoTokenizer.from_pretrained(recipe.base.model, padding_side="right")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    human = np.array([example.score for example in examples])
    mean, deviation = human.mean(), human.std()
    order = random.Random(recipe.optimiser.seed).sample(range(len(examples)), len(examples))
    for start in range(0, len(order), case.batch):
        rows = [examples[i] for i in order[start : start + case.batch]]
        texts = [prompt_text(recipe, row) for row in rows]
        limit = recipe.head.token_limit
        encoded = tokenizer(texts, padding=True, truncation=True, max_length=limit, return_tensors="pt").to(device)
        scores = torch.tensor([(row.score - mean) / deviation for row in rows], dtype=torch.float32, device=device)
        yield encoded, scores


def prompt_text(recipe: Recipe, row: Example) -> str:
    """The whole prompt."""
    fields = dict(zip(Prompt(recipe.head.prompt).fields, row.texts, strict=True))
    return recipe.head.prompt.format(sl=row.names[0], tl=row.names[1], **fields)


def train(options: Namespace, case: Case, device: torch.device) -> Trained:
    """Train a case. Raises torch.OutOfMemoryError when the card is too small."""
    recipe = case_recipe(options, case)
    examples = training_examples(options, recipe)
    clock = Clock(device, case.warm_up)
    torch.manual_seed(recipe.optimiser.seed)
    model = build(recipe, case, device).train()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = make_optimiser(parameters, recipe.optimiser.learning_rate, case.paged)
    clock.begin()
    for number, (encoded, scores) in enumerate(batches(recipe, examples, case, device)):
        clock.before_step(number)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            found = model(encoded["input_ids"], encoded["attention_mask"])
        loss = nn.functional.mse_loss(found, scores)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, recipe.optimiser.clip)
        optimiser.step()
        optimiser.zero_grad()
        clock.after_step(number, loss.item(), len(scores), int(encoded["attention_mask"].sum()))
    clock.end()
    return clock.trained()
