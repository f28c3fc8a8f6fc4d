"""One whole training session: recipe and data in, a finished run folder out."""

from __future__ import annotations

import resource
from pathlib import Path

import torch

from qe_edge.bundle import file_sha256
from qe_edge.errors import DeviceError, InputError, OutputError
from qe_edge.prompt import Prompt
from qe_edge_train import run as files
from qe_edge_train.alignment.parallel import ParallelSet, load_parallel
from qe_edge_train.batches import EncodedSet, encode
from qe_edge_train.build import (
    BaseFacts,
    adapter_counts,
    aligned_layer,
    base_facts,
    build_decoder,
    build_model,
    check_limits,
    check_room,
    kept_blocks,
    prompt_encoder,
)
from qe_edge_train.data import check_dev, check_train, facts_table, load_examples, without
from qe_edge_train.decoder import blocks, weights_sha256
from qe_edge_train.evaluate import dev_sample
from qe_edge_train.guards import writing
from qe_edge_train.loop import Report, Trainer, describe
from qe_edge_train.objectives import AlignmentObjective, Objective, TaskObjective
from qe_edge_train.recipe import Alignment, Recipe
from qe_edge_train.recipe.options import refuse
from qe_edge_train.run import Run, RunFacts
from qe_edge_train.selection import DevScores, Retrieval
from qe_edge_train.warm_start import start_head


def pick_device(requested: str) -> torch.device:
    """ "cpu", "cuda" or "auto" (a GPU when there is one). Raises DeviceError when CUDA is asked for and absent."""
    if requested == "cuda" and not torch.cuda.is_available():
        raise DeviceError("--device cuda: torch sees no CUDA device here; use --device cpu or auto")
    if requested == "auto":
        requested = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(requested)


def train_run(recipe: Recipe, folder: Path, data_folder: Path, device: torch.device, report: Report) -> Run:
    """Train a recipe's task into `folder`, or continue the interrupted run that is there.

    With an [alignment] table every step on the task is followed by one on the parallel texts. Raises InputError when
    the folder holds a finished run or one of another recipe or data, or when the rows cannot be learnt from or compared
    with; OutputError when the folder holds anything that is not of this run, or cannot be written. A refused run
    changes nothing, and one whose disk is full continues when there is room.
    """
    refuse(not recipe.train, "no training data: add a [[train]] table with a path")
    refuse(not recipe.dev, "no dev data: add a [[dev]] table with a path (it selects the best checkpoint)")
    _check_folder(folder, recipe)
    facts = base_facts(recipe.base)
    check_limits(recipe, facts)
    kept = kept_blocks(recipe, facts)
    counts = adapter_counts(recipe, facts, kept)
    train, dev, data = _task_data(recipe, facts, data_folder, report)
    parallel = None
    if recipe.alignment is not None:
        parallel, _, read = parallel_sets(recipe.alignment, data_folder, measured=False)
        data += read
    if facts.moving_positions is not None:
        report(
            f"this base scales its positions by {facts.moving_positions!r}: it can be trained, but `qe-edge export` "
            "will refuse the run; use a base with fixed rotary positions to get a bundle"
        )
    model = build_model(recipe, facts, kept, counts, device)
    task = TaskObjective(recipe, model, train, device)
    if recipe.head.start == "closed_form" and not (folder / files.CHECKPOINT_FILE).exists():
        report("fitting the head to the states of the untrained base")
        start_head(task)
    objectives: list[Objective] = [task]
    if parallel is not None:
        layer = aligned_layer(recipe, facts)
        objectives.append(
            AlignmentObjective(recipe, model.decoder, layer, parallel, facts.tokenizer, facts.bos, device)
        )
    trainer = Trainer(
        recipe,
        model.decoder,
        model.head,
        objectives,
        len(task) * len(objectives),
        DevScores(recipe, model, dev, device),
        folder,
        device,
        report,
        weights_sha256(recipe.base.model),
        [str(item["sha256"]) for item in data],
    )
    pairs = train.pairs if Prompt(recipe.head.prompt).uses_languages else []
    return _run(trainer, facts, counts, pairs, data, data_folder)


def align_run(recipe: Recipe, folder: Path, data_folder: Path, device: torch.device, report: Report) -> Run:
    """Align a layer of a recipe's base, without a task, into `folder`, or continue the interrupted run that is there.

    The run has an adapter up to the aligned layer and no head. Raises as `train_run` does.
    """
    refuse(recipe.alignment is None, "nothing to align: add an [alignment] table and its [[alignment.texts]]")
    assert recipe.alignment is not None
    _check_folder(folder, recipe)
    facts = base_facts(recipe.base)
    check_limits(recipe, facts, task=False)
    layer = aligned_layer(recipe, facts)
    counts = adapter_counts(recipe, facts, layer)
    parallel, held_out, data = parallel_sets(recipe.alignment, data_folder)
    refuse(held_out is None, "[alignment] held_out = 0: lines are needed that choose the best checkpoint")
    assert held_out is not None
    decoder = build_decoder(recipe, facts, layer, counts, device)
    objective = AlignmentObjective(recipe, decoder, layer, parallel, facts.tokenizer, facts.bos, device)
    selection = Retrieval(recipe, decoder, layer, held_out, facts.tokenizer, facts.bos, device)
    steps = recipe.alignment.steps or objective.one_pass()
    report(f"{len(parallel)} lines in {len(parallel.languages)} languages, {len(held_out)} held out, {steps} steps")
    report(f"before: {selection.measure(whole=True).said}")
    base, hashes = weights_sha256(recipe.base.model), [str(item["sha256"]) for item in data]
    trainer = Trainer(recipe, decoder, None, [objective], steps, selection, folder, device, report, base, hashes)
    return _run(trainer, facts, counts, [], data, data_folder)


def parallel_sets(
    options: Alignment, data_folder: Path, measured: bool = True
) -> tuple[ParallelSet, ParallelSet | None, list[dict[str, object]]]:
    """The lines that are trained on, those held out, and facts of the files.

    measured: whether the lines held out are wanted; None when they are not, or when the recipe holds none out.
    """
    first, held = options.first_line, options.held_out
    held_out: ParallelSet | None = None
    if options.lines:
        trained = load_parallel(options.texts, data_folder, first, options.lines)
        start = first + options.lines
        left = trained.total - start + 1
        if measured and held:
            refuse(
                left < held, f"[alignment] held_out = {held}: {left} lines follow those trained on; lower it, or lines"
            )
            held_out = load_parallel(options.texts, data_folder, start, held)
    else:
        whole = load_parallel(options.texts, data_folder, first)
        refuse(
            len(whole) <= held,
            f"[alignment] held_out = {held}: there are {len(whole)} lines from line {first}; lower it",
        )
        end = len(whole) - held
        trained, held_out = whole.part(0, end), whole.part(end, len(whole)) if measured and held else None
    files = [{"path": text.path, "sha256": file_sha256(data_folder / text.path)} for text in options.texts]
    return trained, held_out, [dict(item) for item in files]


def _task_data(
    recipe: Recipe, facts: BaseFacts, data_folder: Path, report: Report
) -> tuple[EncodedSet, EncodedSet, list[dict[str, object]]]:
    """Training and dev rows, encoded, and facts of their tables."""
    encoder, prompt = prompt_encoder(facts, recipe.head), Prompt(recipe.head.prompt)
    column, seed = recipe.target.column, recipe.optimiser.seed
    train_rows, train_facts = load_examples(recipe.train, column, data_folder, seed, prompt)
    dev_rows, dev_facts = load_examples(recipe.dev, column, data_folder, seed, prompt)
    clean = without(train_rows, dev_rows)
    check_train(clean)
    check_dev(dev_rows)
    check_room(recipe.head, facts, {row.names for row in (*clean, *dev_rows)})
    report(
        f"{len(clean)} training rows ({len(train_rows) - len(clean)} also in dev: left out), {len(dev_rows)} dev rows"
    )
    dev = encode(dev_rows, encoder)
    chosen = recipe.evaluation.rows_per_pair
    try:
        check_dev([dev.examples[i] for i in dev_sample(dev, chosen, seed)])
    except InputError as error:
        raise InputError(f"[evaluation] rows_per_pair = {chosen}: {error}; raise it, or 0 for all rows") from None
    return encode(clean, encoder), dev, facts_table([*train_facts, *dev_facts])


def _run(
    trainer: Trainer,
    facts: BaseFacts,
    counts: list[int],
    pairs: list[str],
    data: list[dict[str, object]],
    data_folder: Path,
) -> Run:
    """Train to the end and write what a finished run holds."""
    recipe, folder, device = trainer.recipe, trainer.folder, trainer.device
    with writing(folder):
        trainer.resume()
        folder.mkdir(parents=True, exist_ok=True)
        files.save_recipe(folder, recipe)
        files.save_tokenizer(folder, facts.tokenizer)
        progress = trainer.run()
        files.save_facts(
            folder,
            RunFacts(
                family=facts.family,
                blocks_total=facts.blocks,
                blocks_kept=len(blocks(trainer.decoder)),
                bos=facts.bos,
                head=None if trainer.head is None else trainer.head.options,
                adapter=counts,
                trainable=sum(parameter.numel() for parameter in trainer.parameters),
                language_pairs=pairs,
                data_folder=str(data_folder),
                data=data,
                environment=files.environment(device),
                best_step=progress.best_step,
                dev=trainer.dev_of_best(),
                summary={**describe(progress), "peak_memory_mb": round(_peak_memory(device) / 1e6)},
                base_sha256=trainer.base_hash,
            ),
        )
        run = files.open_run(folder)
        (folder / files.CHECKPOINT_FILE).unlink(missing_ok=True)
    return run


def _check_folder(folder: Path, recipe: Recipe) -> None:
    """Refuse a folder that holds anything but what an interrupted training of this recipe left."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise OutputError(f"{folder}: is not a folder; give another -o")
    if (folder / files.FACTS_FILE).exists():
        raise InputError(f"{folder}: holds a finished run; give another -o or delete it")
    names = {path.name.removesuffix(files.PART) for path in folder.iterdir()}
    foreign = names.difference(files.RUN_FILES)
    if names and files.RECIPE_FILE not in names:  # the first file that a training writes
        foreign = names
    if foreign:
        raise OutputError(f"{folder}: holds other files ({min(foreign)}); give a new or empty folder with -o")
    kept = folder / files.RECIPE_FILE
    if kept.exists() and kept.read_bytes() != files.recipe_content(recipe):
        raise OutputError(f"{kept}: is not what this training writes there; give a new or empty folder with -o")


def _peak_memory(device: torch.device) -> int:
    """Bytes: of the GPU's allocator, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
