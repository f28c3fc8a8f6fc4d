"""Finds out before the first training of a sweep what would end a later one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from qe_edge.bundle import file_sha256
from qe_edge.errors import InputError, OutputError, QeEdgeError
from qe_edge.prompt import Prompt
from qe_edge.tokens import Pair
from qe_edge_train.alignment.sampling import PairSampler
from qe_edge_train.batches import EncodedSet
from qe_edge_train.build import BaseFacts, adapter_counts, base_facts, check_base, check_limits, check_room, kept_blocks
from qe_edge_train.data import check_dev, check_train, load_examples, without
from qe_edge_train.objectives.task import row_weights
from qe_edge_train.recipe import Alignment, Allocation, DataFile, Recipe, Target, load_recipe
from qe_edge_train.recipe.options import refuse
from qe_edge_train.run import FACTS_FILE, RECIPE_FILE, open_run
from qe_edge_train.session import parallel_sets
from qe_edge_train.sweep.plan import PlannedRun

RUNS_FOLDER = "runs"
SWEEP_FILE = "sweep.toml"


def check_sweep(plan: Sequence[PlannedRun], folder: Path, data_folder: Path) -> None:
    """Read what every recipe needs but the weights of its base: configuration, tables and parallel texts, each once.

    Raises InputError or UsageError, with the name of the run, for data that cannot be learnt from, for layers that a
    base does not have, for an adapter that cannot be shared out over the blocks kept, and for a token limit below the
    prompt; InputError when a folder holds a run of another recipe, or a finished one of other data; and
    OutputError when the folder of the sweep holds something else.
    """
    _check_folder(folder)
    facts, sha256 = cache(base_facts), cache(file_sha256)
    check_tables, read_texts = cache(_check_tables), cache(parallel_sets)
    for planned in plan:
        recipe, seed = planned.recipe, planned.recipe.optimiser.seed
        try:
            _check_paths(recipe, data_folder)
            check_limits(recipe, facts(recipe.base))
            _check_shares(recipe, facts(recipe.base))
            sampled = any(table.rows for table in (*recipe.train, *recipe.dev))
            drawn_by = seed if sampled else 0  # the seed draws the samples of rows, and decides on nothing else here
            target = Target(column=recipe.target.column, balance=recipe.target.balance)
            pairs = check_tables(recipe.train, recipe.dev, target, recipe.head.prompt, drawn_by, data_folder)
            check_room(recipe.head, facts(recipe.base), pairs)
            if recipe.alignment is not None:
                chosen = recipe.alignment
                lines = Alignment(
                    first_line=chosen.first_line, lines=chosen.lines, held_out=chosen.held_out, texts=chosen.texts
                )
                trained, _, _ = read_texts(lines, data_folder, measured=False)
                PairSampler(trained, chosen.pivot, chosen.pairs_per_batch, seed)
        except QeEdgeError as error:
            raise type(error)(f"{planned.name}: {error}") from None
        _check_earlier(recipe, folder / RUNS_FOLDER / planned.name, data_folder, sha256)


def _check_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder}: is not a folder; give another -o")
    if folder.exists() and any(folder.iterdir()) and not (folder / SWEEP_FILE).exists():
        raise OutputError(f"{folder}: holds other files; give a new or empty folder with -o")


def _check_paths(recipe: Recipe, data_folder: Path) -> None:
    refuse(not recipe.train or not recipe.dev, "a training needs a [[train]] and a [[dev]] table with a path")
    paths = [table.path for table in (*recipe.train, *recipe.dev)]
    paths += [] if recipe.alignment is None else [text.path for text in recipe.alignment.texts]
    for path in paths:
        refuse(not (data_folder / path).is_file(), f"{data_folder / path}: no such file; check its path and --data")


def _check_shares(recipe: Recipe, facts: BaseFacts) -> None:
    """Whether the base has the blocks that a recipe asks for, and its adapter enough for each of them.

    That does not depend on how the adapter is shared out; by alpha, shares would need the base's weights.
    """
    uniform = replace(recipe, adapter=replace(recipe.adapter, allocation=Allocation(method="uniform")))
    adapter_counts(uniform, facts, kept_blocks(recipe, facts))


def _check_tables(
    train: tuple[DataFile, ...], dev: tuple[DataFile, ...], target: Target, template: str, seed: int, data_folder: Path
) -> frozenset[Pair]:
    """Read training and dev rows as a training does, and keep no more of them than their languages."""
    prompt = Prompt(template)
    train_rows, _ = load_examples(train, target.column, data_folder, seed, prompt)
    dev_rows, _ = load_examples(dev, target.column, data_folder, seed, prompt)
    clean = without(train_rows, dev_rows)
    check_train(clean)
    row_weights(EncodedSet(clean, [], {}), target)
    check_dev(dev_rows)
    return frozenset(row.names for row in (*clean, *dev_rows))


def _check_earlier(recipe: Recipe, folder: Path, data_folder: Path, sha256: Callable[[Path], str]) -> None:
    """Refuse a run that an earlier sweep left in `folder` unless it has this recipe and, if finished, these data."""
    if (folder / RECIPE_FILE).is_file() and load_recipe(folder / RECIPE_FILE) != recipe:
        raise InputError(f"{folder}: holds a run of another recipe; give another -o, or delete that folder")
    if not (folder / FACTS_FILE).is_file():
        return  # an interrupted run is compared with its checkpoint when it continues
    run = open_run(folder)
    check_base(run)
    for read in run.facts.data:
        path = data_folder / read["path"]
        if sha256(path) != read["sha256"]:
            raise InputError(
                f"{folder}: its run read another {path}, which has changed since; restore that file, give another -o, "
                "or delete that folder to train it again"
            )
