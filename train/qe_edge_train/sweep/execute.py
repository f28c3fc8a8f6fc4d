"""Runs the trainings of a sweep one after the other, and keeps the table of results up to date."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch

from qe_edge.errors import InputError, OutputError, QeEdgeError
from qe_edge_train.build import base_facts, kept_blocks
from qe_edge_train.recipe import load_recipe
from qe_edge_train.run import FACTS_FILE, RECIPE_FILE, open_run, replace_file
from qe_edge_train.session import train_run
from qe_edge_train.sweep.plan import PlannedRun
from qe_edge_train.sweep.results import Result, failed, finished, results_csv

RUNS_FOLDER = "runs"
SWEEP_FILE = "sweep.toml"
RESULTS_FILE = "results.csv"

Report = Callable[[str], None]


def run_sweep(
    plan: Sequence[PlannedRun], folder: Path, data_folder: Path, device: torch.device, report: Report
) -> list[Result]:
    """Train what is not trained yet into FOLDER/runs/NAME; results.csv is rewritten after every run.

    A finished run is taken as it is, an interrupted one continues, and one that fails does not keep the others from
    running. Check the plan with `check_sweep` first.
    """
    results: list[Result] = []
    for number, planned in enumerate(plan, start=1):
        result = _one(planned, folder / RUNS_FOLDER / planned.name, data_folder, device, report)
        results.append(result)
        ended = f"failed: {result.failure}" if result.macro is None else f"mean dev Spearman {result.macro:.4f}"
        report(f"run {number} of {len(plan)}, {planned.name}: {ended}")
        replace_file(folder / RESULTS_FILE, results_csv(results).encode())
    return results


def check_sweep(plan: Sequence[PlannedRun], folder: Path, data_folder: Path) -> None:
    """Find out before the first training what would end a later one.

    Raises InputError or UsageError for missing tables and layers that a base does not have, InputError when a folder
    holds a run of another recipe, and OutputError when the folder holds something else.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder}: is not a folder; give another -o")
    if folder.exists() and any(folder.iterdir()) and not (folder / SWEEP_FILE).exists():
        raise OutputError(f"{folder}: holds other files; give a new or empty folder with -o")
    facts = cache(base_facts)
    for planned in plan:
        recipe = planned.recipe
        if not recipe.train or not recipe.dev:
            raise InputError(f"{planned.name}: a training needs a [[train]] and a [[dev]] table with a path")
        paths = [table.path for table in (*recipe.train, *recipe.dev)]
        paths += [] if recipe.alignment is None else [text.path for text in recipe.alignment.texts]
        for path in paths:
            if not (data_folder / path).is_file():
                raise InputError(f"{planned.name}: {data_folder / path}: no such file; check its path and --data")
        kept_blocks(recipe, facts(recipe.base))
        own = folder / RUNS_FOLDER / planned.name
        if (own / RECIPE_FILE).is_file() and load_recipe(own / RECIPE_FILE) != recipe:
            raise InputError(f"{own}: holds a run of another recipe; give another -o, or delete that folder")


def _one(planned: PlannedRun, folder: Path, data_folder: Path, device: torch.device, report: Report) -> Result:
    if (folder / FACTS_FILE).is_file():
        return finished(planned, open_run(folder))
    _reset_peak_memory(device)
    try:
        return finished(planned, train_run(planned.recipe, folder, data_folder, device, report))
    except (QeEdgeError, RuntimeError) as error:  # RuntimeError: torch's own, such as a GPU without memory left
        return failed(planned, (str(error).strip() or type(error).__name__).splitlines()[0])


def _reset_peak_memory(device: torch.device) -> None:
    """Let the next run's peak memory be its own, not that of a larger run before it."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        return
    with suppress(OSError):  # systems other than Linux have no such file: the peak is that of the process so far
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
