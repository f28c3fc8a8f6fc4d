"""Runs the trainings of a sweep one after the other, and keeps the table of results up to date."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import torch

from qe_edge.errors import QeEdgeError
from qe_edge_train.run import FACTS_FILE, open_run, replace_file
from qe_edge_train.session import train_run
from qe_edge_train.sweep.check import RUNS_FOLDER
from qe_edge_train.sweep.plan import PlannedRun
from qe_edge_train.sweep.results import Result, failed, finished, results_csv

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


def _one(planned: PlannedRun, folder: Path, data_folder: Path, device: torch.device, report: Report) -> Result:
    try:
        if (folder / FACTS_FILE).is_file():
            return finished(planned, open_run(folder))
        _reset_peak_memory(device)
        return finished(planned, train_run(planned.recipe, folder, data_folder, device, report))
    except Exception as error:  # whatever it is, such as a GPU without memory left, the other runs may still do
        return failed(planned, _reason(error))


def _reason(error: Exception) -> str:
    """One line: the message of a user's mistake; of anything else its type too, which the message may need."""
    first = next(iter(str(error).strip().splitlines()), "")
    return first if isinstance(error, QeEdgeError) else f"{type(error).__name__}: {first}".removesuffix(": ")


def _reset_peak_memory(device: torch.device) -> None:
    """Let the next run's peak memory be its own, not that of a larger run before it."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        return
    with suppress(OSError):  # systems other than Linux have no such file: the peak is that of the process so far
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
