"""A task run and another run, of alignment or of a task, as one: their adapters added, the weights chosen on dev.

The other run's blocks above the task's highest tap are left out: they cannot reach the score.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer, LoraModel
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors import SafetensorError

from qe_edge.bundle import file_sha256
from qe_edge.errors import InputError, OutputError
from qe_edge.prompt import Prompt
from qe_edge_train import run as files
from qe_edge_train.adapters.lora import quiet_peft
from qe_edge_train.batches import EncodedSet, encode
from qe_edge_train.build import adapted_decoder, base_facts, prompt_encoder
from qe_edge_train.data import IN_RECIPE, check_dev, facts_table, load_examples
from qe_edge_train.guards import reason
from qe_edge_train.merging.deltas import LoraAdapter, combine, read_lora, write_lora
from qe_edge_train.output import check_new_folder, json_text, new_folder
from qe_edge_train.recipe import DataFile
from qe_edge_train.run import Run, RunFacts, open_run
from qe_edge_train.selection import DevScores
from qe_edge_train.tapped import TappedRegressor

MERGE_FILE = "merge.json"
CHOSEN_ON = "the weights of the merged adapters were chosen on these rows"
TASK, OTHER = "default", "other"
"""names of the two adapters in the decoder; the first is peft's own for the adapter loaded first"""

Report = Callable[[str], None]


@dataclass(frozen=True)
class Point:
    """One combination of weights and how it does."""

    task: float
    """weight of the task run's delta"""
    other: float
    """weight of the other run's"""
    dev: dict[str, Any]
    """dev metrics per pair, and `macro_spearman`"""

    @property
    def rank(self) -> tuple[float, float]:
        """What the best has most of: dev Spearman, and of equal ones nearness to the task adapter alone."""
        mean = self.dev["macro_spearman"]
        return (-math.inf if math.isnan(mean) else mean), -abs(self.task - 1) - abs(self.other)


def merge_runs(
    task_folder: Path,
    other_folder: Path,
    out: Path,
    grid: Sequence[tuple[float, float]],
    dev: Sequence[DataFile],
    data_folder: Path | None,
    device: torch.device,
    report: Report,
) -> tuple[Run, list[Point]]:
    """Score every pair of weights (task, other) of the grid on dev; write the best as a run at `out`.

    dev: tables, relative to data_folder or else to the working directory; when empty, those of the task's recipe,
    relative to data_folder or else to where the training found them.
    The result has recipe, head and tokenizer of the task run; it is there complete or not at all. Raises InputError for
    runs that do not go together and for dev rows that cannot be ranked, OutputError when `out` holds something or
    cannot be written.
    """
    if out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        raise OutputError(f"{out}: exists already; give a new folder with -o")
    check_new_folder(out)
    task, other = open_run(task_folder), open_run(other_folder)
    _check_runs(task, other)
    first = read_lora(task.adapter)
    # the recipes name one base; what peft recorded may be where it lay on another machine
    second = replace(read_lora(other.adapter), base=first.base).of_blocks(task.facts.blocks_kept)
    if not second.modules:
        raise InputError(
            f"{other_folder}: its adapter is in none of the {task.facts.blocks_kept} blocks that {task_folder} keeps; "
            "nothing of it can be added"
        )
    combine(first, second, 1.0, 1.0)  # adapters that do not fit are refused before anything is run
    rows, tables = _dev_rows(task, dev, data_folder)
    report(f"{len(rows.examples)} dev rows, {len(grid)} combinations of weights")
    points: list[Point] = []
    with _both(task, second, device) as model:
        for weight, other_weight in grid:
            _set_weights(model, weight, other_weight)
            measured = DevScores(task.recipe, model, rows, device).measure(whole=True)
            points.append(Point(weight, other_weight, measured.record))
            report(f"{weight:g} * {task.folder.name} + {other_weight:g} * {other.folder.name}: {measured.said}")
    best = max(points, key=lambda point: point.rank)
    merged = combine(first, second, best.task, best.other)
    with new_folder(out) as part:
        run = _write(part, task, other, merged, rows, tables, device)
        record = {
            "task": _source(task),
            "other": _source(other),
            "dev_tables": tables,
            "grid": [{"task": point.task, "other": point.other, "dev": point.dev} for point in points],
            "chosen": {"task": best.task, "other": best.other},
            "dev": run.facts.dev,
        }
        files.replace_file(part / MERGE_FILE, json_text(record).encode())
        files.save_facts(part, run.facts)
    return open_run(out), points


def _check_runs(task: Run, other: Run) -> None:
    """Raise InputError unless both are LoRA runs on one base and the first has a head."""
    task.head()
    for run in (task, other):
        if run.recipe.adapter.kind not in ("lora", "rank_per_block"):
            raise InputError(
                f"{run.folder}: its adapter is of kind {run.recipe.adapter.kind!r}; only lora and rank_per_block are "
                "sums that can be merged"
            )
    for key in ("model", "quantisation"):
        mine, theirs = getattr(task.recipe.base, key), getattr(other.recipe.base, key)
        if mine != theirs:
            raise InputError(
                f"{other.folder}: [base] {key} = {theirs!r}, but {task.folder} has {mine!r}; adapters can be merged on "
                "the same base only"
            )
    hashes = {run.facts.base_sha256 for run in (task, other)}
    if len(hashes) == 2 and "" not in hashes:
        raise InputError(f"{other.folder}: was trained on other weights of its base than {task.folder} (base_sha256)")
    if (task.folder / files.TOKENIZER_FILE).read_bytes() != (other.folder / files.TOKENIZER_FILE).read_bytes():
        raise InputError(f"{other.folder}: its tokenizer is not that of {task.folder}: they have different bases")


def _dev_rows(
    task: Run, dev: Sequence[DataFile], data_folder: Path | None
) -> tuple[EncodedSet, list[dict[str, object]]]:
    """The rows that choose the weights, encoded, and facts of their tables."""
    recipe = task.recipe
    folder = data_folder or (Path() if dev else Path(task.facts.data_folder))
    prompt = Prompt(recipe.head.prompt)
    column, lp_option = recipe.target.column, "--lp" if dev else IN_RECIPE
    rows, facts = load_examples(dev or recipe.dev, column, folder, recipe.optimiser.seed, prompt, lp_option)
    check_dev(rows)
    return encode(rows, prompt_encoder(base_facts(recipe.base), recipe.head)), facts_table(facts)


@contextmanager
def _both(task: Run, other: LoraAdapter, device: torch.device) -> Iterator[TappedRegressor]:
    """The task run's model with the other adapter active beside its own."""
    decoder = adapted_decoder(task, device)
    assert isinstance(decoder, PeftModel)
    with TemporaryDirectory(prefix="qe-edge-merge-") as folder, quiet_peft():
        try:
            write_lora(Path(folder), other)
        except (OSError, SafetensorError) as error:
            raise OutputError(
                f"{folder}: cannot be written: {reason(error)}; make room, or set TMPDIR to another folder"
            ) from None
        decoder.load_adapter(folder, OTHER)
    lora: LoraModel = decoder.base_model  # type: ignore[assignment]
    lora.set_adapter([TASK, OTHER], inference_mode=True)
    yield TappedRegressor(decoder, task.head().to(device), task.recipe.head.full_blocks).eval()


def _set_weights(model: TappedRegressor, weight: float, other_weight: float) -> None:
    """Weight the deltas of the two adapters wherever they are."""
    for module in model.decoder.modules():
        if isinstance(module, LoraLayer):
            module.set_scale(TASK, weight)
            module.set_scale(OTHER, other_weight)


def _write(
    out: Path,
    task: Run,
    other: Run,
    merged: LoraAdapter,
    dev: EncodedSet,
    tables: list[dict[str, object]],
    device: torch.device,
) -> Run:
    """Write everything but `run.json`, and measure the adapter that was written: in bfloat16 it rounds otherwise than
    its two parts."""
    names = dict.fromkeys(name for name in (task.recipe.data_name, other.recipe.data_name) if name)
    recipe = replace(task.recipe, data_name=", ".join(names))
    files.save_recipe(out, recipe)
    for name in (files.HEAD_FILE, files.TOKENIZER_FILE):
        shutil.copyfile(task.folder / name, out / name)
    run = replace(task, folder=out, recipe=recipe)
    write_lora(run.adapter, merged)
    model = TappedRegressor(adapted_decoder(run, device), run.head().to(device), recipe.head.full_blocks)
    facts: RunFacts = replace(
        task.facts,
        adapter=merged.ranks(task.facts.blocks_kept),
        trainable=merged.parameters() + sum(parameter.numel() for parameter in model.head.parameters()),
        environment=files.environment(device),
        data=[*task.facts.data, *other.facts.data, *tables],
        dev={**DevScores(recipe, model, dev, device).measure(whole=True).record, "note": CHOSEN_ON},
    )
    return replace(run, facts=facts)


def _source(run: Run) -> dict[str, str]:
    """Which run a part of the merge came from."""
    digest = file_sha256(run.adapter / SAFETENSORS_WEIGHTS_NAME)
    return {"folder": str(run.folder), "name": run.recipe.name, "adapter_sha256": digest}


def merge_table(points: Sequence[Point], run: Run) -> str:
    """Every combination with its dev Spearman per pair, then what was chosen."""
    pairs = list(points[0].dev["pairs"])
    lines = [f"{'task':>6}{'other':>7}" + "".join(f"{pair:>9}" for pair in pairs) + f"{'mean':>9}"]
    best = max(points, key=lambda point: point.rank)
    for point in points:
        values = [point.dev["pairs"][pair]["spearman"] for pair in pairs] + [point.dev["macro_spearman"]]
        scores = "".join(f"{value:>9.4f}" for value in values)
        lines.append(f"{point.task:>6g}{point.other:>7g}{scores}" + ("  best" if point is best else ""))
    lines += ["", f"written   {run.folder}: mean dev Spearman {run.facts.dev['macro_spearman']:.4f}"]
    return "\n".join(lines)
