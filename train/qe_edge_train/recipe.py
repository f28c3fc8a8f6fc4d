"""A training recipe: TOML in, frozen dataclasses out. Unknown keys and impossible values are refused by name.

Defaults are the published ALOPE settings (arXiv 2508.07484), except where a docstring says otherwise.
"""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from qe_edge.errors import InputError
from qe_edge.prompt import ALOPE_TEMPLATE, Prompt


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


@dataclass(frozen=True)
class Head:
    """Where the decoder is tapped and how the score is read."""

    tap: int = 7
    """k of TL-k, counted from the end; the blocks above are dropped before training"""
    layer_norm: bool = False
    """whether a LayerNorm comes before the linear layer"""
    bias: bool = False
    """whether the linear layer has a bias"""
    prompt: str = ALOPE_TEMPLATE
    """template with {sl}, {tl}, {src}, {mt}"""
    token_limit: int = 512
    """most tokens of a prompt, prefix included; longer texts are shortened"""


@dataclass(frozen=True)
class Lora:
    """The low-rank adapter, on the seven linear maps of every kept block."""

    rank: int = 32
    """rank of each adapter"""
    alpha: int = 16
    """numerator of the adapter's scale alpha / rank"""
    dropout: float = 0.0
    """dropout before the adapter"""


@dataclass(frozen=True)
class Target:
    """The number that is learnt."""

    column: str = "mean"
    """column with the direct-assessment score, 0-100"""
    standardise: bool = False
    """learn (score - mean) / sd of the training rows; the head brings it back to the score scale"""
    loss_weight: float = 0.002
    """factor on the mean squared error (ALOPE: .002 on the raw 0-100 scale)"""
    balance: Literal["none", "inverse_sd"] = "none"
    """inverse_sd: a row counts 1 / (sd of its pair's scores), so that pairs with a narrow range are heard"""


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
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """decay after the warm-up, to zero at the last step"""
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


@dataclass(frozen=True)
class Evaluation:
    """When the dev rows are scored and the state is saved."""

    per_epoch: int = 4
    """evaluations per epoch, the last at its end"""
    rows_per_pair: int = 0
    """dev rows per pair that choose the best checkpoint; 0: all. The best one is scored on all dev rows at the end"""
    checkpoint_minutes: float = 5.0
    """a run interrupted loses at most about this much"""


@dataclass(frozen=True)
class DataFile:
    """One table of rows."""

    path: str = ""
    """path, relative to the data folder"""
    lp: str = ""
    """language pair of all its rows, as et-en; empty: its columns must say"""
    rows: int = 0
    """use a random sample of so many rows; 0: all"""


@dataclass(frozen=True)
class Recipe:
    """Everything a training run depends on but the rows themselves."""

    name: str = "run"
    """name of the run, and of the bundles exported from it"""
    data_name: str = ""
    """public name of the training data, e.g. MLQE-PE"""
    base: Base = field(default_factory=Base)
    head: Head = field(default_factory=Head)
    lora: Lora = field(default_factory=Lora)
    target: Target = field(default_factory=Target)
    optimiser: Optimiser = field(default_factory=Optimiser)
    evaluation: Evaluation = field(default_factory=Evaluation)
    train: tuple[DataFile, ...] = ()
    dev: tuple[DataFile, ...] = ()

    def __post_init__(self) -> None:
        Prompt(self.head.prompt)
        problems = [
            (not self.base.model, "[base] model is missing: a hub id or a local folder"),
            (not self.train, "no training data: add a [[train]] table with a path"),
            (not self.dev, "no dev data: add a [[dev]] table with a path (it selects the best checkpoint)"),
            (any(not file.path for file in (*self.train, *self.dev)), "a data table has no path"),
            (self.head.tap < 1, f"[head] tap = {self.head.tap}: taps count from 1 (TL-1 is the last layer)"),
            (self.lora.rank < 1, f"[lora] rank = {self.lora.rank}: must be at least 1"),
            (self.optimiser.epochs < 1, f"[optimiser] epochs = {self.optimiser.epochs}: must be at least 1"),
            (
                self.optimiser.micro_batch_size < 1
                or self.optimiser.batch_size < 1
                or self.optimiser.batch_size % self.optimiser.micro_batch_size != 0,
                f"[optimiser] batch_size = {self.optimiser.batch_size} is not a multiple of "
                f"micro_batch_size = {self.optimiser.micro_batch_size}",
            ),
            (self.optimiser.learning_rate <= 0, "[optimiser] learning_rate must be above 0"),
            (not 0 <= self.optimiser.warmup < 1, "[optimiser] warmup is a share of the steps: 0 <= warmup < 1"),
            (
                self.optimiser.gradient_checkpointing and self.optimiser.share_prefix,
                "[optimiser] gradient_checkpointing = true needs share_prefix = false",
            ),
            (not 0 <= self.lora.dropout < 1, f"[lora] dropout = {self.lora.dropout}: 0 <= dropout < 1"),
            (self.lora.alpha < 1, f"[lora] alpha = {self.lora.alpha}: must be at least 1"),
            (self.optimiser.clip <= 0, f"[optimiser] clip = {self.optimiser.clip}: must be above 0"),
            (self.target.loss_weight <= 0, f"[target] loss_weight = {self.target.loss_weight}: must be above 0"),
            (any(file.rows < 0 for file in (*self.train, *self.dev)), "rows of a data table must not be negative"),
            (
                self.evaluation.rows_per_pair < 0 or self.evaluation.rows_per_pair == 1,
                f"[evaluation] rows_per_pair = {self.evaluation.rows_per_pair}: 0 for all, or at least 2",
            ),
            (self.evaluation.per_epoch < 1, "[evaluation] per_epoch must be at least 1"),
        ]
        for wrong, message in problems:
            if wrong:
                raise InputError(message)


def load_recipe(path: Path) -> Recipe:
    """Read a recipe file. Raises InputError with file, key and remedy."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such recipe file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a folder; give the recipe file itself") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid TOML: {error}") from None
    return parse_recipe(content, str(path))


def parse_recipe(content: dict[str, Any], origin: str) -> Recipe:
    """Build a recipe from parsed TOML; `origin` names the file in messages."""
    try:
        recipe: Recipe = _build(Recipe, content, "")
    except InputError as error:
        raise InputError(f"{origin}: {error}") from None
    return recipe


def recipe_table(recipe: Recipe) -> dict[str, Any]:
    """The resolved recipe as a TOML table; `parse_recipe` reads it back."""
    table = asdict(recipe)
    table["train"], table["dev"] = list(table["train"]), list(table["dev"])
    return table


def _build(kind: Any, table: Any, where: str) -> Any:
    if not isinstance(table, dict):
        raise InputError(f"[{where}] must be a table of keys, not {table!r}")
    known = {item.name for item in fields(kind)}
    hints = get_type_hints(kind)
    values: dict[str, Any] = {}
    for key, value in table.items():
        label = f"{where}.{key}" if where else key
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)[0]
            raise InputError(f"unknown key `{label}`; nearest valid key: `{near}` (of {', '.join(sorted(known))})")
        values[key] = _value(hints[key], value, label)
    return kind(**values)


def _value(kind: Any, value: Any, label: str) -> Any:
    if is_dataclass(kind):
        return _build(kind, value, label)
    if get_origin(kind) is tuple:
        if not isinstance(value, list):
            raise InputError(f"`{label}` must be an array of tables: [[{label}]]")
        return tuple(_build(get_args(kind)[0], item, label) for item in value)
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise InputError(f"`{label}` = {value!r}: must be one of {', '.join(map(repr, get_args(kind)))}")
        return value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise InputError(f"`{label}` = {value!r}: a value of type {kind.__name__} is expected")
    return value
