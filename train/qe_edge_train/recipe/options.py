"""What a training run can be told: one frozen dataclass a group of options, checked when it is constructed.

Defaults are the published ALOPE settings (arXiv 2508.07484), except where a docstring says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from qe_edge.errors import InputError
from qe_edge.languages import parse_pair
from qe_edge.prompt import ALOPE_TEMPLATE, Prompt
from qe_edge_train.alignment.retrieval import NEIGHBOURS


@dataclass(frozen=True)
class Base:
    """The decoder that is trained."""

    model: str = ""
    """hub id or local folder"""
    quantisation: Literal["nf4", "none"] = "nf4"
    """nf4: 4-bit NormalFloat with double quantisation (QLoRA); none: weights in `dtype`"""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """type of the weights that are not quantised, and of the matrix products"""
    name: str = ""
    """public name written into run and bundle; the model's own id when empty"""
    licence: str = "unknown"
    """licence of the base's weights, passed on to the bundle"""

    def __post_init__(self) -> None:
        _refuse_unprintable("[base] name", self.name)
        _refuse_unprintable("[base] licence", self.licence)


@dataclass(frozen=True)
class Head:
    """Where the decoder is tapped and how the score is read."""

    strategy: Literal["single", "dynamic", "multi"] = "single"
    """single: one tap; dynamic: a learnt weighting of several taps; multi: a head for every tap, their mean counts"""
    taps: tuple[int, ...] = (7,)
    """every k of TL-k that is read, counted from the end; the blocks above the highest are dropped before training"""
    full_blocks: int = 0
    """blocks that run on every token; those above run on the last one of a row alone, with keys and values from the
    state below them (SwiftKV, arXiv 2410.03960), at a tenth of the cost. 0: all kept blocks run in full"""
    layer_norm: bool = False
    """whether a LayerNorm comes before the linear layer"""
    bias: bool = False
    """whether the linear layer has a bias"""
    start: Literal["random", "closed_form"] = "random"
    """random: as published; closed_form: ridge regression on the states of the untrained base (arXiv 2202.10054)"""
    prompt: str = ALOPE_TEMPLATE
    """template with {sl}, {tl}, {src}, {mt}, or with the names of other columns"""
    token_limit: int = 512
    """most tokens of a prompt, prefix included; longer texts are shortened"""

    def __post_init__(self) -> None:
        texts = len(Prompt(self.prompt).fields)
        _refuse_unprintable("[head] prompt", self.prompt.replace("\n", " ").replace("\t", " "))
        refuse(
            self.token_limit < texts,
            f"[head] token_limit = {self.token_limit}: must be at least {texts}, a token of each text, and more for "
            "the words of the prompt",
        )
        refuse(not self.taps, "[head] taps is empty: name at least one tap, as taps = [11]")
        for tap in self.taps:
            refuse(tap < 1, f"[head] taps: {tap}: taps count from 1 (TL-1 is the last layer)")
        refuse(len(set(self.taps)) < len(self.taps), f"[head] taps = {list(self.taps)}: each tap once")
        refuse(self.full_blocks < 0, f"[head] full_blocks = {self.full_blocks}: must not be negative; 0 means all")
        refuse(
            self.strategy == "single" and len(self.taps) > 1,
            f"[head] taps = {list(self.taps)}: strategy 'single' reads one tap; use 'dynamic' or 'multi' for several",
        )
        refuse(
            self.start == "closed_form" and not self.bias, "[head] start = 'closed_form' needs bias = true: it fits one"
        )


@dataclass(frozen=True)
class Allocation:
    """How much adapter each block gets (AlphaLoRA, arXiv 2410.10054)."""

    method: Literal["alpha", "uniform", "mola", "mola_reversed"] = "alpha"
    """alpha: by how well a block is trained; uniform; mola: 2-4-6-8 by quarter of the depth; mola_reversed: 8-6-4-2"""
    estimator: Literal["hill_median", "ks_peak"] = "hill_median"
    """how the power-law exponent of a block's spectra is estimated"""
    beta: float = 2.5
    """how strongly the exponents are followed; 0 would be uniform"""

    def __post_init__(self) -> None:
        refuse(self.beta < 0, f"[adapter.allocation] beta = {self.beta}: must not be negative")


@dataclass(frozen=True)
class Adapter:
    """The low-rank adapter, on the seven linear maps of every kept block."""

    kind: Literal["lora", "rank_per_block", "experts", "none"] = "lora"
    """lora: one rank everywhere; rank_per_block: ranks by `allocation`; experts: a routed mixture of LoRA experts,
    their number by `allocation`; none: the base stays as it is and only the head learns"""
    rank: int = 32
    """rank of each adapter; of rank_per_block the mean over blocks; of experts that of one expert (published: 8)"""
    alpha: int = 16
    """numerator of the adapter's scale alpha / rank"""
    dropout: float = 0.0
    """dropout before the adapter"""
    experts: float = 2.5
    """experts per kept block on average (published: 80 for 32 blocks)"""
    frozen_blocks: int = 0
    """blocks from the bottom without an adapter: they stay as they are, and no gradient is computed through them"""
    balance: float = 0.001
    """factor on the load-balance loss of experts"""
    allocation: Allocation = field(default_factory=Allocation)

    def __post_init__(self) -> None:
        refuse(self.rank < 1, f"[adapter] rank = {self.rank}: must be at least 1")
        refuse(self.alpha < 1, f"[adapter] alpha = {self.alpha}: must be at least 1")
        refuse(not 0 <= self.dropout < 1, f"[adapter] dropout = {self.dropout}: 0 <= dropout < 1")
        refuse(self.experts < 1, f"[adapter] experts = {self.experts}: every block needs at least one expert")
        refuse(self.balance < 0, f"[adapter] balance = {self.balance}: must not be negative")
        refuse(self.frozen_blocks < 0, f"[adapter] frozen_blocks = {self.frozen_blocks}: must not be negative")
        refuse(
            self.frozen_blocks > 0 and self.kind not in ("lora", "rank_per_block"),
            f"[adapter] frozen_blocks = {self.frozen_blocks}: goes with kind = 'lora' or 'rank_per_block'; "
            f"leave it out with {self.kind!r}",
        )


@dataclass(frozen=True)
class Target:
    """The number that is learnt."""

    column: str = "mean"
    """column with the number to learn"""
    scale: str = "DA 0-100"
    """what the number means, passed on to the bundle"""
    standardise: bool = False
    """learn (score - mean) / sd of the training rows; the head brings it back to the score scale"""
    loss_weight: float = 0.002
    """factor on the mean squared error of a head (ALOPE on the raw 0-100 scale: .002; with several heads .0002 each)"""
    balance: Literal["none", "inverse_sd"] = "none"
    """inverse_sd: a row counts 1 / (sd of its pair's scores), so that pairs with a narrow range are heard"""

    def __post_init__(self) -> None:
        refuse(self.loss_weight <= 0, f"[target] loss_weight = {self.loss_weight}: must be above 0")
        _refuse_unprintable("[target] scale", self.scale)
        refuse(not self.scale, "[target] scale is empty: say what the number means, as scale = 'DA 0-100'")


@dataclass(frozen=True)
class Optimiser:
    """How the weights move."""

    epochs: int = 1
    """passes over the training rows"""
    batch_size: int = 8
    """rows per optimiser step"""
    micro_batch_size: int = 8
    """rows per forward pass, all of one language pair; divides batch_size"""
    learning_rate: float = 2e-4
    """peak learning rate"""
    schedule: Literal["constant", "linear", "cosine", "inverse_sqrt"] = "constant"
    """decay after the warm-up: none, to zero at the last step (linear, cosine), or with 1 / sqrt(step)"""
    warmup: float = 0.0
    """share of the steps in which the rate grows from zero"""
    weight_decay: float = 0.0
    """decoupled weight decay"""
    clip: float = 1.0
    """largest norm of the gradient"""
    algorithm: Literal["auto", "adamw", "paged_adamw_32bit"] = "auto"
    """auto: bitsandbytes' paged AdamW on a GPU, torch's AdamW on a CPU (the same update)"""
    share_prefix: bool = True
    """run the prompt prefix once per forward pass (exact, gradient included) instead of once per row"""
    gradient_checkpointing: bool = False
    """recompute activations to save memory; needs share_prefix = false (ALOPE: on; the result is the same)"""
    seed: int = 1
    """seeds weights and row order"""

    def __post_init__(self) -> None:
        refuse(self.epochs < 1, f"[optimiser] epochs = {self.epochs}: must be at least 1")
        refuse(
            self.micro_batch_size < 1 or self.batch_size < 1 or self.batch_size % self.micro_batch_size != 0,
            f"[optimiser] batch_size = {self.batch_size} is not a multiple of "
            f"micro_batch_size = {self.micro_batch_size}",
        )
        refuse(self.learning_rate <= 0, "[optimiser] learning_rate must be above 0")
        refuse(not 0 <= self.warmup < 1, "[optimiser] warmup is a share of the steps: 0 <= warmup < 1")
        refuse(
            self.gradient_checkpointing and self.share_prefix,
            "[optimiser] gradient_checkpointing = true needs share_prefix = false",
        )
        refuse(self.weight_decay < 0, f"[optimiser] weight_decay = {self.weight_decay}: must not be negative")
        refuse(not 0 <= self.seed < 1 << 63, f"[optimiser] seed = {self.seed}: must lie from 0 to 2^63 - 1")
        refuse(self.clip <= 0, f"[optimiser] clip = {self.clip}: must be above 0")


@dataclass(frozen=True)
class ParallelText:
    """One language of a parallel set: a text file whose n-th line says the same as the n-th line of the others."""

    path: str = ""
    """path, relative to the data folder"""
    language: str = ""
    """its language, as et"""

    def __post_init__(self) -> None:
        refuse(not self.path or not self.language, "a table [[alignment.texts]] needs a path and a language")


@dataclass(frozen=True)
class Alignment:
    """Contrastive alignment of a middle layer across languages (mid-align, arXiv 2502.14830)."""

    layer: int = 0
    """index i of the aligned hidden_states[i], which is i blocks deep; 0: half of the base's depth"""
    temperature: float = 0.1
    """divides the cosines"""
    symmetric: bool = False
    """whether targets also look for their sources (published: sources for their targets only)"""
    pairs_per_batch: int = 32
    """sentence pairs contrasted with each other"""
    pivot: str = ""
    """language that every pair has on one side; empty: that of the first text"""
    first_line: int = 1
    """first line used, from 1; the lines before it stay unseen"""
    lines: int = 0
    """lines trained on; 0: all but those held out"""
    held_out: int = 200
    """lines after these that are never trained on and measure retrieval"""
    token_limit: int = 128
    """most tokens of a sentence; longer ones are cut"""
    steps: int = 0
    """optimiser steps of `qe-edge align`; 0: as many as draw every pair once. Training has as many as the task"""
    texts: tuple[ParallelText, ...] = ()

    def __post_init__(self) -> None:
        refuse(self.layer < 0, f"[alignment] layer = {self.layer}: layers count from 1 (the output of the first block)")
        refuse(self.temperature <= 0, f"[alignment] temperature = {self.temperature}: must be above 0")
        refuse(self.pairs_per_batch < 2, f"[alignment] pairs_per_batch = {self.pairs_per_batch}: must be at least 2")
        refuse(self.first_line < 1, f"[alignment] first_line = {self.first_line}: lines count from 1")
        refuse(min(self.lines, self.steps, self.held_out) < 0, "[alignment] lines, steps, held_out: not below 0")
        refuse(
            0 < self.held_out < NEIGHBOURS,
            f"[alignment] held_out = {self.held_out}: retrieval is measured on at least {NEIGHBOURS} lines; raise it, "
            "or 0 holds none out",
        )
        refuse(self.token_limit < 2, f"[alignment] token_limit = {self.token_limit}: must be at least 2")


@dataclass(frozen=True)
class Evaluation:
    """When the dev rows are scored and the state is saved."""

    per_epoch: int = 4
    """evaluations per epoch, the last at its end"""
    rows_per_pair: int = 0
    """dev rows per pair that choose the best checkpoint; 0: all. The best one is scored on all dev rows at the end"""
    checkpoint_minutes: float = 5.0
    """a run interrupted loses at most about this much"""

    def __post_init__(self) -> None:
        refuse(
            self.rows_per_pair < 0 or self.rows_per_pair == 1,
            f"[evaluation] rows_per_pair = {self.rows_per_pair}: 0 for all, or at least 2",
        )
        refuse(self.per_epoch < 1, "[evaluation] per_epoch must be at least 1")
        refuse(
            self.checkpoint_minutes < 0,
            f"[evaluation] checkpoint_minutes = {self.checkpoint_minutes}: must not be negative",
        )


@dataclass(frozen=True)
class DataFile:
    """One table of rows."""

    path: str = ""
    """path, relative to the data folder"""
    lp: str = ""
    """language pair of all its rows, as et-en; empty: its columns must say"""
    first_row: int = 1
    """first row used, counted from 1 without the header: a file can be split into training and dev rows"""
    last_row: int = 0
    """last row used; 0: to the end"""
    rows: int = 0
    """use a random sample of so many of these rows; 0: all"""

    def __post_init__(self) -> None:
        refuse(not self.path, "a data table has no path")
        if self.lp:
            try:
                parse_pair(self.lp)
            except InputError as error:
                raise InputError(f"{self.path}: lp = {self.lp!r}: {error}") from None
        refuse(self.rows < 0, f"{self.path}: rows = {self.rows}: must not be negative")
        refuse(
            self.first_row < 1 or (self.last_row != 0 and self.last_row < self.first_row),
            f"{self.path}: rows {self.first_row} to {self.last_row}: rows count from 1, last_row = 0 is the end",
        )


@dataclass(frozen=True)
class Recipe:
    """Everything a training run depends on but the rows themselves."""

    name: str = "run"
    """name of the run, and of the bundles exported from it"""
    data_name: str = ""
    """public name of the training data, e.g. MLQE-PE"""
    base: Base = field(default_factory=Base)
    head: Head = field(default_factory=Head)
    adapter: Adapter = field(default_factory=Adapter)
    target: Target = field(default_factory=Target)
    optimiser: Optimiser = field(default_factory=Optimiser)
    evaluation: Evaluation = field(default_factory=Evaluation)
    alignment: Alignment | None = None
    """a step on a parallel set after every step on the task; none when the recipe has no such table"""
    train: tuple[DataFile, ...] = ()
    dev: tuple[DataFile, ...] = ()

    def __post_init__(self) -> None:
        refuse(not self.name.strip(), "name is empty: the run, and bundles exported from it, are known by it")
        _refuse_unprintable("name", self.name)
        _refuse_unprintable("data_name", self.data_name)
        refuse(not self.base.model, "[base] model is missing: a hub id or a local folder")
        refuse(
            self.alignment is not None and self.adapter.kind == "none",
            "[alignment] needs an adapter that can learn: [adapter] kind = 'none' leaves nothing to align",
        )
        if self.head.full_blocks:
            refuse(
                self.adapter.kind == "experts",
                "[head] full_blocks: routed experts are balanced over all tokens of a row; set full_blocks = 0",
            )
            refuse(
                self.optimiser.gradient_checkpointing,
                "[head] full_blocks: upper blocks share states, which gradient checkpointing would lose; "
                "set full_blocks = 0 or gradient_checkpointing = false",
            )


def _refuse_unprintable(key: str, text: str) -> None:
    """Texts that a bundle passes on are printed, where a control character could change what a terminal shows."""
    refuse(not text.isprintable(), f"{key} = {text!r}: control characters; remove them")


def refuse(wrong: bool, message: str) -> None:
    """Raise InputError with a message if something is wrong."""
    if wrong:
        raise InputError(message)
