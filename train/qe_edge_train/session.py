"""One whole training session: recipe and data in, a finished run folder out."""

from __future__ import annotations

import resource
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch

from qe_edge.errors import DeviceError, InputError, OutputError
from qe_edge_train import run as files
from qe_edge_train.batches import encode
from qe_edge_train.build import base_facts, build_model, prompt_encoder
from qe_edge_train.data import Example, facts_table, load_examples, without
from qe_edge_train.loop import Report, Trainer, describe
from qe_edge_train.recipe import Recipe
from qe_edge_train.run import Run, RunFacts


def pick_device(requested: str) -> torch.device:
    """ "cpu", "cuda" or "auto" (a GPU when there is one). Raises DeviceError when CUDA is asked for and absent."""
    if requested == "cuda" and not torch.cuda.is_available():
        raise DeviceError("--device cuda: torch sees no CUDA device here; use --device cpu or auto")
    if requested == "auto":
        requested = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(requested)


def train_run(recipe: Recipe, folder: Path, data_folder: Path, device: torch.device, report: Report) -> Run:
    """Train a recipe into `folder`, or continue the interrupted run that is there.

    Raises InputError when the folder holds a finished run or one of another recipe or data, or when the rows cannot be
    learnt from or compared with; OutputError when the folder cannot be written. A refused run changes nothing.
    """
    _check_folder(folder)
    facts = base_facts(recipe.base)
    encoder = prompt_encoder(facts, recipe.head)
    seed = recipe.optimiser.seed
    train_rows, train_facts = load_examples(recipe.train, recipe.target.column, data_folder, seed)
    dev_rows, dev_facts = load_examples(recipe.dev, recipe.target.column, data_folder, seed)
    clean = without(train_rows, dev_rows)
    _check_rows(clean, dev_rows)
    report(
        f"{len(clean)} training rows ({len(train_rows) - len(clean)} also in dev: left out), {len(dev_rows)} dev rows"
    )
    train, dev = encode(clean, encoder), encode(dev_rows, encoder)

    model = build_model(recipe, facts, device)
    hashes = [item.sha256 for item in (*train_facts, *dev_facts)]
    trainer = Trainer(recipe, model, train, dev, folder, device, report, hashes)
    trainer.resume()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files.save_recipe(folder, recipe)
        facts.tokenizer.save(str(folder / files.TOKENIZER_FILE))
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written: {error.strerror}; give another -o") from None
    progress = trainer.run()
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
            dev=trainer.dev_of_best(),
            summary={**describe(progress), "peak_memory_mb": round(_peak_memory(device) / 1e6)},
        ),
    )
    (folder / files.CHECKPOINT_FILE).unlink(missing_ok=True)
    return files.open_run(folder)


def _check_folder(folder: Path) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise OutputError(f"{folder}: is not a folder; give another -o")
    if (folder / files.FACTS_FILE).exists():
        raise InputError(f"{folder}: holds a finished run; give another -o or delete it")
    if any(folder.iterdir()) and not (folder / files.RECIPE_FILE).exists():
        raise OutputError(f"{folder}: holds other files; give a new or empty folder with -o")


def _check_rows(train: Sequence[Example], dev: Sequence[Example]) -> None:
    """Raise InputError unless there is something to learn from and every dev pair can be ranked."""
    if not train:
        raise InputError("no training rows are left without empty, repeated and dev rows; give other [[train]] tables")
    rows = Counter(row.pair for row in dev)
    if not rows:
        raise InputError("no dev rows are left once empty rows are out; give other [[dev]] tables")
    for pair, count in rows.items():
        if count < 2 or len({row.score for row in dev if row.pair == pair}) < 2:
            raise InputError(f"dev rows of {pair}: {count} with one score; a correlation needs two different scores")


def _peak_memory(device: torch.device) -> int:
    """Bytes: of the GPU's allocator, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
