"""One training that is timed: how it is set up, and what was measured. Both loops take the one and give the other."""

from __future__ import annotations

import resource
import time
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch

from benchmarks.gpu.recipe import embedded_on, first_rows
from benchmarks.gpu.step import synchronise
from qe_edge.prompt import Prompt
from qe_edge_train.data import Example, load_examples
from qe_edge_train.recipe import Recipe

Loop = Literal["qe-edge", "plain"]
LOOPS: tuple[Loop, ...] = ("qe-edge", "plain")


@dataclass(frozen=True)
class Case:
    """QLoRA on the embedded recipe's task: NF4 with double quantisation, LoRA on the seven maps of a block."""

    loop: Loop
    shape: str
    """"base", or one of decoders.SHAPES"""
    batch: int = 16
    """rows of an optimiser step, in one forward pass"""
    checkpointing: bool = False
    """whether activations are recomputed"""
    paged: bool = True
    """whether bitsandbytes' paged AdamW is used; else torch's"""
    warm_up: int = 4
    """steps before the clock starts"""
    steps: int = 20
    """steps that are timed"""

    @property
    def name(self) -> str:
        recomputes = "checkpointing" if self.checkpointing else "no checkpointing"
        return f"{self.loop} {self.shape}, batch {self.batch}, {recomputes}, {'paged' if self.paged else 'torch'} AdamW"


@dataclass(frozen=True)
class Trained:
    """What one training took."""

    steps: int
    """timed"""
    rows: int
    """of these steps"""
    tokens: int
    """real tokens of their whole prompts, whether a loop runs each of them or shares some"""
    seconds: float
    tokens_per_second: float
    first_loss: float
    last_loss: float
    load_peak_bytes: int
    """largest memory of torch's allocator while the model was loaded; of the process on a CPU"""
    peak_bytes: int
    """the same while it was trained"""


@dataclass
class Clock:
    """Times the steps after the first few, and counts what they train on."""

    device: torch.device
    warm_up: int
    load_peak: int = 0
    losses: list[float] = field(default_factory=list)
    rows: int = 0
    tokens: int = 0
    started: float = 0.0
    seconds: float = 0.0

    def begin(self) -> None:
        """The model is loaded and the first step follows."""
        self.load_peak = peak_memory(self.device)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def before_step(self, number: int) -> None:
        """Step `number`, from 0, begins."""
        if number == self.warm_up:
            synchronise(self.device)
            self.started = time.perf_counter()

    def after_step(self, number: int, loss: float, rows: int, tokens: int) -> None:
        """It is done. Raises ValueError for a loss that is not finite."""
        if not torch.isfinite(torch.tensor(loss)):
            raise ValueError(f"the loss became {loss} at step {number + 1}")
        self.losses.append(loss)
        if number >= self.warm_up:
            self.rows += rows
            self.tokens += tokens

    def end(self) -> None:
        """The last step is done."""
        synchronise(self.device)
        self.seconds = time.perf_counter() - self.started

    def trained(self) -> Trained:
        """All figures."""
        steps = len(self.losses) - self.warm_up
        rate = self.tokens / self.seconds
        peak = peak_memory(self.device)
        ends = self.losses[0], self.losses[-1]
        return Trained(steps, self.rows, self.tokens, self.seconds, rate, *ends, self.load_peak, peak)


def peak_memory(device: torch.device) -> int:
    """Bytes: of the GPU's allocator since it was last reset, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def case_recipe(options: Namespace, case: Case) -> Recipe:
    """The recipe of a case, with enough training rows for its steps, or a few more."""
    recipe = embedded_on(options, case.shape, quantised=True)
    of_each = -(-(case.warm_up + case.steps) // len(recipe.train)) * case.batch  # whole batches of every language pair
    optimiser = replace(
        recipe.optimiser,
        batch_size=case.batch,
        micro_batch_size=case.batch,
        share_prefix=not case.checkpointing,
        gradient_checkpointing=case.checkpointing,
        algorithm="paged_adamw_32bit" if case.paged else "adamw",
    )
    return replace(recipe, optimiser=optimiser, train=first_rows(recipe.train, of_each))


def training_examples(options: Namespace, recipe: Recipe) -> Sequence[Example]:
    """The rows of a recipe's training tables."""
    examples, _ = load_examples(
        recipe.train, recipe.target.column, options.data, recipe.optimiser.seed, Prompt(recipe.head.prompt)
    )
    return examples
