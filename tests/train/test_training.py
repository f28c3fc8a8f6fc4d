"""Whole training runs on a tiny decoder: learning, resuming after a kill, and what a run folder holds."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tomli_w
import torch
from peft import PeftModel
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from qe_edge.bundle import file_sha256
from qe_edge.cli import main
from qe_edge.errors import InputError, OutputError
from qe_edge.prompt import Prompt
from qe_edge_train.decoder import cut_decoder, load_decoder
from qe_edge_train.evaluate import predict
from qe_edge_train.recipe import Base, Evaluation, Optimiser, Recipe, load_recipe, recipe_table
from qe_edge_train.run import open_run, save_recipe
from qe_edge_train.session import train_run
from qe_edge_train.summary import summary_table

CPU = torch.device("cpu")


def silent(line: str) -> None:
    """Progress nobody reads."""


def dev_lines(folder: Path) -> list[dict[str, float]]:
    records = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    return [record["dev"] for record in records if "dev" in record]


def test_training_learns_and_writes_a_complete_run(recipe: Recipe, tables: Path, tmp_path: Path) -> None:
    longer = dataclasses.replace(recipe, optimiser=dataclasses.replace(recipe.optimiser, epochs=15, learning_rate=1e-2))

    run = train_run(longer, tmp_path / "run", tables, CPU, silent)

    first, best = dev_lines(run.folder)[0], run.facts.dev
    assert best["macro_spearman"] == max(record["macro_spearman"] for record in dev_lines(run.folder))
    assert best["macro_spearman"] > 0.6 > first["macro_spearman"]
    assert set(best["pairs"]) == {"et-en", "ne-en"}
    assert (run.facts.blocks_kept, run.facts.blocks_total) == (3, 4)
    assert run.facts.data[0]["rows"] == 48
    assert run.facts.environment["torch"] == torch.__version__
    assert open_run(run.folder).recipe == longer
    assert not (run.folder / "checkpoint.pt").exists()
    assert list((run.folder / "tensorboard").iterdir())
    table = summary_table(run)
    assert f"mean{best['macro_spearman']:>21.3f}" in table
    assert "head      single, TL-2\n" in table
    assert "3 of 4 blocks, float32\n" in table
    assert f"LoRA of rank 4, {run.facts.trainable} trained parameters" in table


def test_the_adapter_is_loaded_by_peft_itself_and_scores_as_recorded(
    recipe: Recipe, tables: Path, tmp_path: Path
) -> None:
    from qe_edge_train.batches import encode
    from qe_edge_train.build import base_facts, prompt_encoder
    from qe_edge_train.data import load_examples
    from qe_edge_train.evaluate import per_pair
    from qe_edge_train.tapped import TappedRegressor

    run = train_run(recipe, tmp_path / "run", tables, CPU, silent)
    decoder = cut_decoder(load_decoder(recipe.base.model, torch.float32), 2)
    model = TappedRegressor(PeftModel.from_pretrained(decoder, str(run.adapter)), run.head())
    examples, _ = load_examples(recipe.dev, "mean", tables, 1, Prompt(recipe.head.prompt))
    data = encode(examples, prompt_encoder(base_facts(recipe.base), recipe.head))
    rows = range(len(examples))

    again = per_pair(data, rows, predict(model, data, rows, CPU))

    for pair, value in again.items():
        assert value.spearman == pytest.approx(run.facts.dev["pairs"][pair]["spearman"], abs=1e-6)
        assert value.mae == pytest.approx(run.facts.dev["pairs"][pair]["mae"], abs=1e-3)


def test_a_killed_run_continues_to_the_same_result(
    recipe: Recipe, tables: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slow = dataclasses.replace(
        recipe,
        optimiser=dataclasses.replace(recipe.optimiser, epochs=3),
        evaluation=dataclasses.replace(recipe.evaluation, checkpoint_minutes=0.0),
    )
    whole = train_run(slow, tmp_path / "whole", tables, CPU, silent)
    path = tmp_path / "recipe.toml"
    path.write_text(tomli_w.dumps(recipe_table(slow)), encoding="utf-8")
    folder = tmp_path / "killed"
    command = ["train", str(path), "-o", str(folder), "--data", str(tables), "--device", "cpu"]

    process = subprocess.Popen([sys.executable, "-m", "qe_edge", *command], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (folder / "checkpoint.pt").exists():
        assert process.poll() is None, "the run ended before its first checkpoint"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (folder / "run.json").exists()
    with pytest.raises(InputError, match="not finished"):
        open_run(folder)

    assert main(command) == 0

    assert "resumed at step" in capsys.readouterr().err
    run = open_run(folder)
    assert run.facts.best_step == whole.facts.best_step
    assert run.facts.dev["macro_spearman"] == pytest.approx(whole.facts.dev["macro_spearman"], abs=1e-6)
    expected = load_file(whole.adapter / "adapter_model.safetensors")
    for name, tensor in load_file(run.adapter / "adapter_model.safetensors").items():
        torch.testing.assert_close(tensor, expected[name], atol=1e-5, rtol=1e-4)
    assert len(dev_lines(folder)) == len(dev_lines(whole.folder))


def test_a_finished_run_is_not_overwritten(recipe: Recipe, tables: Path, tmp_path: Path) -> None:
    run = train_run(recipe, tmp_path / "run", tables, CPU, silent)

    with pytest.raises(InputError, match="holds a finished run"):
        train_run(recipe, run.folder, tables, CPU, silent)


def test_a_checkpoint_of_another_recipe_is_refused(recipe: Recipe, tables: Path, tmp_path: Path) -> None:
    stopped = dataclasses.replace(recipe, evaluation=dataclasses.replace(recipe.evaluation, checkpoint_minutes=0.0))

    def stop(line: str) -> None:
        if line.startswith("dev at step"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_run(stopped, tmp_path / "run", tables, CPU, stop)
    assert (tmp_path / "run" / "checkpoint.pt").exists()
    other = dataclasses.replace(stopped, adapter=dataclasses.replace(recipe.adapter, alpha=16))
    with pytest.raises(OutputError, match=r"recipe\.toml: is not what this training writes there"):
        train_run(other, tmp_path / "run", tables, CPU, silent)
    save_recipe(tmp_path / "run", other)
    with pytest.raises(InputError, match="belongs to another recipe"):
        train_run(other, tmp_path / "run", tables, CPU, silent)


def test_a_checkpoint_of_other_data_is_refused_and_nothing_is_written(
    recipe: Recipe, tables: Path, tmp_path: Path
) -> None:
    def stop(line: str) -> None:
        if line.startswith("dev at step"):
            raise KeyboardInterrupt

    often = dataclasses.replace(recipe, evaluation=dataclasses.replace(recipe.evaluation, checkpoint_minutes=0.0))
    with pytest.raises(KeyboardInterrupt):
        train_run(often, tmp_path / "run", tables, CPU, stop)
    other = tmp_path / "tables"
    shutil.copytree(tables, other)
    with (other / "train.tsv").open("a", encoding="utf-8") as stream:
        stream.write("et-en\tnew\tgood\t90\n")
    before = {path: path.read_bytes() for path in (tmp_path / "run").glob("*.*")}

    with pytest.raises(InputError, match="the tables have changed"):
        train_run(often, tmp_path / "run", other, CPU, silent)

    assert {path: path.read_bytes() for path in (tmp_path / "run").glob("*.*")} == before


def test_a_folder_of_other_things_is_not_written_to(recipe: Recipe, tables: Path, tmp_path: Path) -> None:
    (tmp_path / "history.jsonl").write_text("mine")

    with pytest.raises(OutputError, match="holds other files"):
        train_run(recipe, tmp_path, tables, CPU, silent)
    with pytest.raises(OutputError, match="is not a folder"):
        train_run(recipe, tmp_path / "history.jsonl", tables, CPU, silent)

    assert (tmp_path / "history.jsonl").read_text() == "mine"


@pytest.mark.parametrize("beside", [[], ["notes.txt"], ["history.jsonl"]])
def test_a_recipe_of_the_users_own_is_not_overwritten(
    recipe: Recipe, tables: Path, tmp_path: Path, beside: list[str]
) -> None:
    own = "# mine\n" + tomli_w.dumps(recipe_table(recipe))
    (tmp_path / "recipe.toml").write_text(own, encoding="utf-8")
    for name in beside:
        (tmp_path / name).write_text("mine", encoding="utf-8")

    with pytest.raises(OutputError, match="give a new or empty folder with -o"):
        train_run(load_recipe(tmp_path / "recipe.toml"), tmp_path, tables, CPU, silent)

    assert (tmp_path / "recipe.toml").read_text(encoding="utf-8") == own
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*beside, "recipe.toml"])
    assert all((tmp_path / name).read_text(encoding="utf-8") == "mine" for name in beside)


def test_other_files_beside_the_recipe_of_a_run_are_not_mixed_with_it(
    recipe: Recipe, tables: Path, tmp_path: Path
) -> None:
    save_recipe(tmp_path, recipe)
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")

    with pytest.raises(OutputError, match=r"holds other files \(notes\.txt\)"):
        train_run(recipe, tmp_path, tables, CPU, silent)

    (tmp_path / "notes.txt").unlink()
    assert train_run(load_recipe(tmp_path / "recipe.toml"), tmp_path, tables, CPU, silent).recipe == recipe


@pytest.mark.parametrize(
    ("dev", "expected"),
    [
        ("et-en\ta\tb\t1\n", "dev rows of et-en: 1 with one score"),
        ("et-en\ta\tb\t1\net-en\tc\td\t1\n", "dev rows of et-en: 2 with one score"),
        ("et-en\t\tb\t1\n", "no dev rows are left"),
    ],
)
def test_dev_rows_that_cannot_be_ranked_end_before_training(
    recipe: Recipe, tables: Path, tmp_path: Path, dev: str, expected: str
) -> None:
    shutil.copy(tables / "train.tsv", tmp_path)
    (tmp_path / "dev.tsv").write_text("lp\toriginal\ttranslation\tmean\n" + dev, encoding="utf-8")

    with pytest.raises(InputError, match=expected):
        train_run(recipe, tmp_path / "run", tmp_path, CPU, silent)


def test_a_sample_of_dev_rows_that_cannot_be_ranked_ends_before_training(
    recipe: Recipe, tables: Path, tmp_path: Path
) -> None:
    """Its correlation would be no number, and the last checkpoint would be taken for the best."""
    shutil.copy(tables / "train.tsv", tmp_path)
    scores = [0] * 11 + [100]
    lines = [f"{pair}\tsource {i}\tword {i}\t{score}" for pair in ("et-en", "ne-en") for i, score in enumerate(scores)]
    (tmp_path / "dev.tsv").write_text("\n".join(["lp\toriginal\ttranslation\tmean", *lines]) + "\n", encoding="utf-8")
    few = dataclasses.replace(recipe, evaluation=Evaluation(rows_per_pair=2))

    with pytest.raises(
        InputError, match=r"^\[evaluation\] rows_per_pair = 2: dev rows of et-en: 2 with one score.*raise"
    ):
        train_run(few, tmp_path / "run", tmp_path, CPU, silent)
    assert not (tmp_path / "run").exists()


def test_a_token_limit_below_the_prompt_is_named_by_its_key(recipe: Recipe, tables: Path, tmp_path: Path) -> None:
    short = dataclasses.replace(recipe, head=dataclasses.replace(recipe.head, token_limit=9))

    with pytest.raises(
        InputError, match=r"^\[head\] token_limit = 9: the prompt and a token of each text take \d+; raise"
    ):
        train_run(short, tmp_path / "run", tables, CPU, silent)


@pytest.mark.parametrize(("part", "said"), [("train", "no training data: add a"), ("dev", "no dev data: add a")])
def test_a_recipe_without_data_ends_before_anything_is_written(
    recipe: Recipe, tables: Path, tmp_path: Path, part: str, said: str
) -> None:
    empty = dataclasses.replace(recipe, train=()) if part == "train" else dataclasses.replace(recipe, dev=())

    with pytest.raises(InputError, match=said):
        train_run(empty, tmp_path / "run", tables, CPU, silent)

    assert not (tmp_path / "run").exists()


def test_the_same_table_for_training_and_dev_is_refused(recipe: Recipe, tables: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no training rows are left"):
        train_run(dataclasses.replace(recipe, train=recipe.dev), tmp_path / "run", tables, CPU, silent)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_sharing_the_prefix_and_recomputing_activations_change_no_result(
    recipe: Recipe, tables: Path, tmp_path: Path, checkpointing: bool
) -> None:
    plain = train_run(recipe, tmp_path / "shared", tables, CPU, silent)
    options = dataclasses.replace(recipe.optimiser, share_prefix=False, gradient_checkpointing=checkpointing)
    other = train_run(dataclasses.replace(recipe, optimiser=options), tmp_path / "whole", tables, CPU, silent)

    for pair, value in plain.facts.dev["pairs"].items():
        assert other.facts.dev["pairs"][pair]["mae"] == pytest.approx(value["mae"], rel=1e-3)


def test_four_bit_training_moves_the_adapter_and_leaves_the_base(recipe: Recipe, tables: Path, tmp_path: Path) -> None:
    four_bit = dataclasses.replace(
        recipe,
        base=Base(model=recipe.base.model, quantisation="nf4"),
        optimiser=Optimiser(batch_size=8, micro_batch_size=8, learning_rate=5e-3),
    )
    weights = Path(recipe.base.model) / "model.safetensors"
    before = file_sha256(weights)

    run = train_run(four_bit, tmp_path / "run", tables, CPU, silent)

    assert file_sha256(weights) == before
    adapter = load_file(run.adapter / "adapter_model.safetensors")
    moved = [name for name, tensor in adapter.items() if "lora_B" in name and tensor.abs().max() > 0]
    assert len(moved) == 3 * 7
    assert -1 <= run.facts.dev["macro_spearman"] <= 1


def test_a_tap_beyond_the_depth_ends_before_training(
    recipe: Recipe, tables: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deep = dataclasses.replace(recipe, head=dataclasses.replace(recipe.head, taps=(9,)))
    path = tmp_path / "recipe.toml"
    path.write_text(tomli_w.dumps(recipe_table(deep)), encoding="utf-8")

    assert main(["train", str(path), "-o", str(tmp_path / "run"), "--data", str(tables)]) == 2

    assert capsys.readouterr().err.splitlines()[-1] == (
        "qe-edge: error: tap TL-9 does not exist: a decoder of 4 blocks has TL-1 to TL-4"
    )


def test_tensorboard_reads_what_a_run_wrote_for_it(recipe: Recipe, tables: Path, tmp_path: Path) -> None:
    run = train_run(recipe, tmp_path / "run", tables, CPU, silent)

    events = EventAccumulator(str(run.folder / "tensorboard")).Reload()

    assert set(events.Tags()["scalars"]) == {"train/loss/task", "train/learning_rate", "dev"}
    assert [event.step for event in events.Scalars("train/loss/task")] == list(range(1, 13))
    assert max(event.value for event in events.Scalars("dev")) == pytest.approx(run.facts.dev["macro_spearman"])
