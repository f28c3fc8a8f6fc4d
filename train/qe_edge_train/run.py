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
from safetensors.torch import load_file, save_file
from torch import nn

from qe_edge.errors import InputError
from qe_edge_train.adapters import save_adapter
from qe_edge_train.heads import HeadOptions, RegressionHead
from qe_edge_train.output import json_text, with_nan
from qe_edge_train.recipe import Recipe, load_recipe, recipe_table

RECIPE_FILE = "recipe.toml"
FACTS_FILE = "run.json"
ADAPTER_FOLDER = "adapter"
HEAD_FILE = "head.safetensors"
TOKENIZER_FILE = "tokenizer.json"
HISTORY_FILE = "history.jsonl"
CHECKPOINT_FILE = "checkpoint.pt"
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
        """The trained head, on the CPU. Raises InputError for a run without one."""
        if self.facts.head is None:
            raise InputError(
                f"{self.folder}: this run only aligns languages and has no head; train one with a task, or add its "
                "adapter to that of a task: `qe-edge merge-adapters TASK ALIGNED`, the task's run first"
            )
        head = RegressionHead(self.facts.head)
        head.load_state_dict(load_file(self.folder / HEAD_FILE))
        return head


def open_run(folder: Path) -> Run:
    """Read a run folder. Raises InputError when it is not one or is unfinished."""
    if not (folder / RECIPE_FILE).is_file():
        raise InputError(
            f"{folder}: not a training run (no {RECIPE_FILE}); give the folder that `qe-edge train -o` wrote"
        )
    if not (folder / FACTS_FILE).is_file():
        raise InputError(f"{folder}: the run is not finished; continue it with the same `qe-edge train` command")
    facts = json.loads((folder / FACTS_FILE).read_text(encoding="utf-8"))
    if facts["head"] is not None:
        facts["head"] = HeadOptions(**{**facts["head"], "offsets": tuple(facts["head"]["offsets"])})
    facts["dev"] = with_nan(facts["dev"])
    return Run(folder, load_recipe(folder / RECIPE_FILE), RunFacts(**facts))


def save_recipe(folder: Path, recipe: Recipe) -> None:
    """Write the resolved recipe."""
    (folder / RECIPE_FILE).write_text(tomli_w.dumps(recipe_table(recipe)), encoding="utf-8")


def save_facts(folder: Path, facts: RunFacts) -> None:
    """Write `run.json`, the last file of a run."""
    replace_file(folder / FACTS_FILE, json_text(asdict(facts)).encode())


def save_best(folder: Path, decoder: nn.Module, head: RegressionHead | None) -> None:
    """Write adapter and head of the best checkpoint so far."""
    save_adapter(decoder, folder / ADAPTER_FOLDER)
    if head is not None:
        save_file({name: tensor.contiguous().cpu() for name, tensor in head.state_dict().items()}, folder / HEAD_FILE)


def append_history(folder: Path, record: dict[str, Any]) -> None:
    """Add one line to the metrics history."""
    with (folder / HISTORY_FILE).open("a", encoding="utf-8") as stream:
        stream.write(json_text(record, indent=None))


def replace_file(path: Path, content: bytes) -> None:
    """Write a file so that a crash leaves either the old or the new content."""
    part = path.with_name(path.name + ".part")
    with part.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(path)


def environment(device: torch.device) -> dict[str, str]:
    """Versions and machine, for the record."""
    facts = {name: version(name) for name in PACKAGES}
    facts["python"] = platform.python_version()
    facts["machine"] = f"{platform.machine()}, {os.cpu_count()} CPUs"
    facts["device"] = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return facts
