"""The folder of a training run: what it holds and how it is written and read.

recipe.toml          the resolved recipe
run.json             facts: base, data, environment, best step, dev metrics
adapter/             adapter of the best checkpoint; LoRA is loadable by peft itself
head.safetensors     regression head of the best checkpoint; not in a run that only aligns
tokenizer.json       the base's tokenizer
history.jsonl        training and dev metrics, a line each
tensorboard/         the same for TensorBoard
checkpoint.pt        state to resume from; gone once the run is finished
"""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import tomli_w
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from tokenizers import Tokenizer
from torch import nn

from qe_edge.errors import InputError
from qe_edge_train.adapters import holds_adapter, save_adapter
from qe_edge_train.guards import reading
from qe_edge_train.heads import HeadOptions, RegressionHead
from qe_edge_train.output import json_text, with_nan
from qe_edge_train.recipe import Recipe, load_recipe, recipe_table

RECIPE_FILE = "recipe.toml"
FACTS_FILE = "run.json"
ADAPTER_FOLDER = "adapter"
HEAD_FILE = "head.safetensors"
TOKENIZER_FILE = "tokenizer.json"
HISTORY_FILE = "history.jsonl"
TENSORBOARD_FOLDER = "tensorboard"
CHECKPOINT_FILE = "checkpoint.pt"
RUN_FILES = (
    *(RECIPE_FILE, FACTS_FILE, ADAPTER_FOLDER, HEAD_FILE, TOKENIZER_FILE),
    *(HISTORY_FILE, TENSORBOARD_FOLDER, CHECKPOINT_FILE),
)
"""All that a training writes into its folder."""
PART = ".part"
"""Ends the name of a file that `replace_file` has not finished."""
PACKAGES = ("qe-edge", "torch", "transformers", "peft", "bitsandbytes", "tokenizers", "numpy")


@dataclass(frozen=True)
class RunFacts:
    """The contents of `run.json`."""

    family: str
    """`model_type` of the base"""
    blocks_total: int
    """blocks of the uncut base"""
    blocks_kept: int
    """blocks trained"""
    bos: int | None
    """id before every prompt"""
    head: HeadOptions | None
    """none in a run that only aligns"""
    adapter: list[int]
    """what the adapter gives each block: ranks, or experts"""
    trainable: int
    """trained parameters"""
    language_pairs: list[str]
    """pairs trained on"""
    data_folder: str
    """folder that the recipe's paths are relative to, as it was given"""
    data: list[dict[str, Any]]
    """what was read from each table"""
    environment: dict[str, str]
    """versions and machine"""
    best_step: int
    """optimiser step of the best checkpoint"""
    dev: dict[str, Any]
    """dev metrics of the best checkpoint, per pair, and `macro_spearman`; of a run that only aligns
    `retrieval_accuracy`"""
    summary: dict[str, float]
    """seconds, tokens per second, peak memory"""
    base_sha256: str = ""
    """of the base's weights (`weights_sha256`); empty in runs of earlier versions"""


@dataclass(frozen=True)
class Run:
    """A finished training run. Construct it with `open_run`."""

    folder: Path
    recipe: Recipe
    facts: RunFacts

    @property
    def adapter(self) -> Path:
        return self.folder / ADAPTER_FOLDER

    def head(self) -> RegressionHead:
        """The trained head, on the CPU. Raises InputError for a run without one, and for a damaged one."""
        if self.facts.head is None:
            raise InputError(
                f"{self.folder}: this run only aligns languages and has no head; train one with a task, or add its "
                "adapter to that of a task: `qe-edge merge-adapters TASK ALIGNED`, the task's run first"
            )
        head = RegressionHead(self.facts.head)
        load_head(self.folder, head)
        return head

    def tokenizer(self) -> Tokenizer:
        """The base's tokenizer. Raises InputError when it is damaged."""
        path = self.folder / TOKENIZER_FILE
        with reading(path, Exception):  # tokenizers raises nothing more special
            return Tokenizer.from_file(str(path))


def open_run(folder: Path) -> Run:
    """Read a run folder. Raises InputError when it is not one, is unfinished or damaged, or lacks a part."""
    if not (folder / RECIPE_FILE).is_file():
        raise InputError(
            f"{folder}: not a training run (no {RECIPE_FILE}); give the folder that `qe-edge train -o` wrote"
        )
    if not (folder / FACTS_FILE).is_file():
        raise InputError(f"{folder}: the run is not finished; continue it with the same `qe-edge train` command")
    with reading(folder / FACTS_FILE, ValueError, KeyError, TypeError):
        content = json.loads((folder / FACTS_FILE).read_text(encoding="utf-8"))
        if content["head"] is not None:
            content["head"] = HeadOptions(**{**content["head"], "offsets": tuple(content["head"]["offsets"])})
        content["dev"] = with_nan(content["dev"])
        facts = RunFacts(**content)
    run = Run(folder, load_recipe(folder / RECIPE_FILE), facts)
    _check_part(folder / TOKENIZER_FILE, (folder / TOKENIZER_FILE).is_file())
    check_best(folder, run.recipe, facts.head is not None)
    return run


def check_best(folder: Path, recipe: Recipe, has_head: bool) -> None:
    """Raise InputError when adapter or head of the best checkpoint are not there."""
    if has_head:
        _check_part(folder / HEAD_FILE, (folder / HEAD_FILE).is_file())
    if recipe.adapter.kind != "none":
        _check_part(folder / ADAPTER_FOLDER, holds_adapter(folder / ADAPTER_FOLDER))


def _check_part(path: Path, there: bool) -> None:
    if not there:
        raise InputError(f"{path}: missing; the run folder is incomplete, copy it again or train again")


def recipe_content(recipe: Recipe) -> bytes:
    """What the recipe file of a run holds: the resolved recipe."""
    return tomli_w.dumps(recipe_table(recipe)).encode()


def save_recipe(folder: Path, recipe: Recipe) -> None:
    """Write the resolved recipe."""
    replace_file(folder / RECIPE_FILE, recipe_content(recipe))


def save_tokenizer(folder: Path, tokenizer: Tokenizer) -> None:
    """Write the base's tokenizer."""
    replace_file(folder / TOKENIZER_FILE, tokenizer.to_str(pretty=True).encode())


def save_facts(folder: Path, facts: RunFacts) -> None:
    """Write `run.json`, the last file of a run."""
    replace_file(folder / FACTS_FILE, json_text(asdict(facts)).encode())


def save_best(folder: Path, decoder: nn.Module, head: RegressionHead | None) -> None:
    """Write adapter and head of the best checkpoint so far."""
    save_adapter(decoder, folder / ADAPTER_FOLDER)
    if head is not None:
        state = {name: tensor.contiguous().cpu() for name, tensor in head.state_dict().items()}
        replace_file(folder / HEAD_FILE, save(state))


def load_head(folder: Path, head: RegressionHead) -> None:
    """Give a head the weights that `save_best` wrote. Raises InputError when they are damaged or do not fit."""
    path = folder / HEAD_FILE
    with reading(path, SafetensorError, RuntimeError):  # torch raises RuntimeError for weights that do not fit
        head.load_state_dict(load_file(path))


def append_history(folder: Path, record: dict[str, Any]) -> None:
    """Add one line to the metrics history."""
    with (folder / HISTORY_FILE).open("a", encoding="utf-8") as stream:
        stream.write(json_text(record, indent=None))


def replace_file(path: Path, content: bytes) -> None:
    """Write a file so that a crash or a full disk leaves either the old or the new content."""
    part = path.with_name(path.name + PART)
    try:
        with part.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def environment(device: torch.device) -> dict[str, str]:
    """Versions and machine, for the record."""
    facts = {name: version(name) for name in PACKAGES}
    facts["python"] = platform.python_version()
    facts["machine"] = f"{platform.machine()}, {os.cpu_count()} CPUs"
    facts["device"] = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return facts
