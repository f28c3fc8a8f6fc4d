"""What is probed: the frozen base of a recipe, or the decoder that a run has trained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from qe_edge_train.build import BaseFacts, adapted_decoder, base_facts, check_limits, load_cut_decoder
from qe_edge_train.recipe import Recipe, load_recipe
from qe_edge_train.recipe.options import refuse
from qe_edge_train.run import open_run


@dataclass(frozen=True)
class Subject:
    """A frozen decoder with the recipe that says what it reads and learns."""

    recipe: Recipe
    facts: BaseFacts
    decoder: nn.Module
    layers: int
    """blocks that can be run on all tokens: all of a base, of a trained run those that run in full"""
    data_folder: Path
    """folder that the recipe's paths are relative to"""
    run: Path | None
    """folder of the trained run; none for a frozen base"""


def open_subject(path: Path, data_folder: Path | None, device: torch.device) -> Subject:
    """A recipe file's base, or a run folder's trained decoder with its adapter.

    data_folder: by default the recipe's own folder, or the one that the run was trained from. Raises InputError for
    what is neither a recipe nor a finished run, and without a task; UsageError when the base cannot be loaded.
    """
    if path.is_dir():
        run = open_run(path)
        _check_task(path, run.recipe)
        facts = base_facts(run.recipe.base)
        folder = data_folder or Path(run.facts.data_folder)
        layers = run.recipe.head.full_blocks or run.facts.blocks_kept
        return Subject(run.recipe, facts, adapted_decoder(run, device), layers, folder, path)
    recipe = load_recipe(path)
    _check_task(path, recipe)
    facts = base_facts(recipe.base)
    check_limits(recipe, facts)
    decoder = load_cut_decoder(recipe.base, 1, device)
    return Subject(recipe, facts, decoder, facts.blocks, data_folder or path.parent, None)


def _check_task(path: Path, recipe: Recipe) -> None:
    refuse(
        not recipe.train or not recipe.dev,
        f"{path}: has no task to probe: the recipe lacks a [[train]] or [[dev]] table; give one, or a run, with both",
    )
