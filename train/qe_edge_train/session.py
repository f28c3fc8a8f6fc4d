"""One whole training session: recipe and data in, a finished run folder out."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import torch

from qe_edge.errors import InputError, UsageError
from qe_edge_train import run as files
from qe_edge_train.batches import encode
from qe_edge_train.build import base_facts, build_model, prompt_encoder
from qe_edge_train.data import facts_table, load_examples
from qe_edge_train.loop import Report, Trainer, describe
from qe_edge_train.recipe import Recipe
from qe_edge_train.run import Run, RunFacts


def pick_device(requested: str) -> torch.device:
    """ "cpu", "cuda" or "auto" (a GPU when there is one). Raises UsageError when CUDA is asked for and absent."""
    if requested == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: torch sees no CUDA device here; use --device cpu or auto")
    if requested == "auto":
        requested = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(requested)


def train_run(recipe: Recipe, folder: Path, data_folder: Path, device: torch.device, report: Report) -> Run:
    """Train a recipe into `folder`, or continue the interrupted run that is there.

    Raises InputError when the folder holds a finished run or one of another recipe.
    """
    if (folder / files.FACTS_FILE).exists():
        raise InputError(f"{folder}: holds a finished run; give another -o or delete it")
    facts = base_facts(recipe.base)
    encoder = prompt_encoder(facts, recipe.head)
    seed = recipe.optimiser.seed
    train_rows, train_facts = load_examples(recipe.train, recipe.target.column, data_folder, seed)
    dev_rows, dev_facts = load_examples(recipe.dev, recipe.target.column, data_folder, seed)
    known = {(row.pair, row.source, row.translation) for row in dev_rows}
    clean = [row for row in train_rows if (row.pair, row.source, row.translation) not in known]
    report(
        f"{len(clean)} training rows ({len(train_rows) - len(clean)} also in dev: left out), {len(dev_rows)} dev rows"
    )
    train, dev = encode(clean, encoder), encode(dev_rows, encoder)

    folder.mkdir(parents=True, exist_ok=True)
    files.save_recipe(folder, recipe)
    facts.tokenizer.save(str(folder / files.TOKENIZER_FILE))
    model = build_model(recipe, facts, device)
    trainer = Trainer(recipe, model, train, dev, folder, device, report)
    progress = trainer.run()

    records = [json.loads(line) for line in (folder / files.HISTORY_FILE).read_text(encoding="utf-8").splitlines()]
    best = next(record["dev"] for record in records if "dev" in record and record["step"] == progress.best_step)
    files.save_facts(
        folder,
        RunFacts(
            family=facts.family,
            blocks_total=facts.blocks,
            blocks_kept=model.adapter().config.num_hidden_layers,
            bos=facts.bos,
            head=model.head.options,
            language_pairs=train.pairs,
            data_folder=str(data_folder),
            data=facts_table([*train_facts, *dev_facts]),
            environment=files.environment(device),
            best_step=progress.best_step,
            dev=best,
            summary={**describe(progress), "peak_memory_mb": round(_peak_memory(device) / 1e6)},
        ),
    )
    (folder / files.CHECKPOINT_FILE).unlink(missing_ok=True)
    return files.open_run(folder)


def _peak_memory(device: torch.device) -> int:
    """Bytes: of the GPU's allocator, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
