"""Merging two runs: every combination is scored on dev, the best is written as a run, and nothing else is changed."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from qe_edge.cli import main
from qe_edge.errors import InputError, OutputError, UsageError
from qe_edge_train.merging.command import dev_tables, merge_adapters, parse_grid
from qe_edge_train.merging.deltas import read_lora
from qe_edge_train.merging.runs import Point, merge_runs, merge_table
from qe_edge_train.recipe import (
    Adapter,
    Alignment,
    Base,
    DataFile,
    Evaluation,
    Head,
    Optimiser,
    ParallelText,
    Recipe,
    Target,
)
from qe_edge_train.run import Run, open_run, save_facts, save_recipe
from qe_edge_train.session import align_run, train_run
from tests.conftest import largest_file
from tests.train.conftest import PROMPT

CPU = torch.device("cpu")


def silent(line: str) -> None:
    """Progress nobody reads."""


@pytest.fixture(scope="module")
def recipe(tiny_base: Path) -> Recipe:
    """A recipe of 3 blocks that trains in a second."""
    return Recipe(
        base=Base(model=str(tiny_base), quantisation="none", dtype="float32"),
        head=Head(taps=(2,), prompt=PROMPT, token_limit=400),
        adapter=Adapter(rank=4, alpha=8),
        target=Target(standardise=True, loss_weight=1.0),
        optimiser=Optimiser(learning_rate=5e-3),
        evaluation=Evaluation(per_epoch=1),
        train=(DataFile("train.tsv"),),
        dev=(DataFile("dev.tsv"),),
    )


@pytest.fixture(scope="module")
def two_runs(recipe: Recipe, tables: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    """A task run of 3 blocks, and an alignment run of the first 2 on the same base."""
    folder = tmp_path_factory.mktemp("runs")
    for language, word in (("en", "stone"), ("et", "kivi")):
        lines = "".join(f"{word} {number}\n" for number in range(40))
        (folder / f"{language}.txt").write_text(lines, encoding="utf-8")
    texts = (ParallelText("en.txt", "en"), ParallelText("et.txt", "et"))
    alignment = Alignment(layer=2, pairs_per_batch=8, held_out=8, steps=6, texts=texts)
    task = train_run(recipe, folder / "task", tables, CPU, silent)
    aligner = align_run(dataclasses.replace(recipe, alignment=alignment), folder / "aligner", folder, CPU, silent)
    return task, aligner


def files_of(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_best_combination_is_written_as_a_run_and_the_sources_stay(
    two_runs: tuple[Run, Run], tmp_path: Path
) -> None:
    task, aligner = two_runs
    before = files_of(task.folder) | files_of(aligner.folder)
    grid = [(1.0, 0.0), (0.5, 0.5), (1.0, 1.0), (0.0, 1.0)]

    run, points = merge_runs(task.folder, aligner.folder, tmp_path / "merged", grid, [], None, CPU, silent)

    assert files_of(task.folder) | files_of(aligner.folder) == before
    best = max(points, key=lambda point: point.dev["macro_spearman"])
    assert run.facts.dev["macro_spearman"] == pytest.approx(best.dev["macro_spearman"], abs=1e-6)
    assert run.recipe == task.recipe
    assert (run.facts.head, run.facts.blocks_kept) == (task.facts.head, 3)
    for name in ("head.safetensors", "tokenizer.json"):
        assert (run.folder / name).read_bytes() == (task.folder / name).read_bytes()
    record = json.loads((run.folder / "merge.json").read_text())
    assert record["chosen"] == {"task": best.task, "other": best.other}
    assert [(one["task"], one["other"]) for one in record["grid"]] == grid
    assert [one["dev"] for one in record["grid"]] == [point.dev for point in points]
    assert record["task"]["folder"] == str(task.folder)
    assert record["dev_tables"][0]["rows"] == 24
    assert record["dev"] == run.facts.dev
    assert "best" in merge_table(points, run).splitlines()[1 + points.index(best)]


def test_the_task_alone_scores_as_its_run_recorded(two_runs: tuple[Run, Run], tmp_path: Path) -> None:
    task, aligner = two_runs

    run, (alone,) = merge_runs(task.folder, aligner.folder, tmp_path / "m", [(1.0, 0.0)], [], None, CPU, silent)

    for dev in (alone.dev, run.facts.dev):
        assert dev["macro_spearman"] == pytest.approx(task.facts.dev["macro_spearman"], abs=1e-9)
        for pair, value in dev["pairs"].items():
            assert value["mae"] == pytest.approx(task.facts.dev["pairs"][pair]["mae"], abs=1e-5)
    assert read_lora(run.adapter).ranks(3) == run.facts.adapter == [4, 4, 4]
    assert run.facts.trainable == task.facts.trainable


def test_what_is_written_scores_as_the_two_adapters_did_together(two_runs: tuple[Run, Run], tmp_path: Path) -> None:
    task, aligner = two_runs

    run, (point,) = merge_runs(task.folder, aligner.folder, tmp_path / "m", [(0.4, 1.6)], [], None, CPU, silent)

    for pair, value in run.facts.dev["pairs"].items():
        assert value["mae"] == pytest.approx(point.dev["pairs"][pair]["mae"], abs=1e-4)
        assert value["mae"] != pytest.approx(task.facts.dev["pairs"][pair]["mae"], abs=1e-3)
    assert run.facts.adapter == [8, 8, 4]


def test_blocks_of_the_other_run_above_the_task_are_left_out(
    two_runs: tuple[Run, Run], recipe: Recipe, tables: Path, tmp_path: Path
) -> None:
    deeper = dataclasses.replace(recipe, head=dataclasses.replace(recipe.head, taps=(1,)))
    other = train_run(deeper, tmp_path / "deeper", tables, CPU, silent)

    run, _ = merge_runs(two_runs[0].folder, other.folder, tmp_path / "m", [(0.5, 0.5)], [], None, CPU, silent)

    assert (other.facts.blocks_kept, run.facts.adapter) == (4, [8, 8, 8])


def test_another_run_with_nothing_in_the_blocks_of_the_task_is_refused(
    two_runs: tuple[Run, Run], recipe: Recipe, tables: Path, tmp_path: Path
) -> None:
    head = dataclasses.replace(recipe.head, taps=(1,))
    above = dataclasses.replace(recipe, head=head, adapter=dataclasses.replace(recipe.adapter, frozen_blocks=3))
    other = train_run(above, tmp_path / "above", tables, CPU, silent)

    with pytest.raises(InputError, match=r"its adapter is in none of the 3 blocks that .* keeps"):
        merge_runs(two_runs[0].folder, other.folder, tmp_path / "m", [(0.5, 0.5)], [], None, CPU, silent)


def test_equal_scores_go_to_the_weights_nearest_to_the_task_alone() -> None:
    points = [Point(w, round(1 - w, 9), {"macro_spearman": score}) for w, score in ((0.2, 0.7), (0.6, 0.7), (1.0, 0.6))]
    undefined = Point(1.0, 0.0, {"macro_spearman": float("nan")})

    assert max(points, key=lambda point: point.rank) is points[1]
    assert max([undefined, points[2]], key=lambda point: point.rank) is points[2]


def test_runs_that_do_not_go_together_are_refused(two_runs: tuple[Run, Run], tmp_path: Path) -> None:
    task, aligner = two_runs

    def altered(recipe: Recipe) -> Path:
        folder = tmp_path / "altered"
        shutil.copytree(aligner.folder, folder, dirs_exist_ok=True)
        save_recipe(folder, recipe)
        return folder

    def refused(first: Path, second: Path) -> str:
        with pytest.raises(InputError) as caught:
            merge_runs(first, second, tmp_path / "out", [(1.0, 0.0)], [], None, CPU, silent)
        assert not (tmp_path / "out").exists()
        return str(caught.value)

    base, adapter = aligner.recipe.base, aligner.recipe.adapter
    assert "this run only aligns languages" in refused(aligner.folder, task.folder)
    other_base = altered(dataclasses.replace(aligner.recipe, base=dataclasses.replace(base, model="other")))
    assert refused(task.folder, other_base) == (
        f"{other_base}: [base] model = 'other', but {task.folder} has {base.model!r}; adapters can be merged on the "
        "same base only"
    )
    quantised = altered(dataclasses.replace(aligner.recipe, base=dataclasses.replace(base, quantisation="nf4")))
    assert "[base] quantisation = 'nf4', but" in refused(task.folder, quantised)
    facts = dataclasses.replace(aligner.facts, base_sha256="another")
    later = altered(aligner.recipe)
    save_facts(later, facts)
    assert "was trained on other weights of its base than" in refused(task.folder, later)
    experts = altered(dataclasses.replace(aligner.recipe, adapter=dataclasses.replace(adapter, kind="experts")))
    assert "its adapter is of kind 'experts'; only lora and rank_per_block" in refused(task.folder, experts)


def test_a_folder_that_holds_something_is_not_written_to(two_runs: tuple[Run, Run]) -> None:
    task, aligner = two_runs
    before = files_of(aligner.folder)

    with pytest.raises(OutputError, match="exists already; give a new folder with -o"):
        merge_runs(task.folder, aligner.folder, aligner.folder, [(1.0, 0.0)], [], None, CPU, silent)

    assert files_of(aligner.folder) == before


@pytest.mark.parametrize(("size", "where"), [(1000, "merged"), (-1000, "qe-edge-merge-")])
def test_a_disk_that_is_full_costs_one_line_and_leaves_nothing(
    two_runs: tuple[Run, Run],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    size: int,
    where: str,
) -> None:
    task, aligner = two_runs
    command = ["merge-adapters", str(task.folder), str(aligner.folder), "-q"]
    command += ["-o", str(tmp_path / "merged"), "--grid", "1:1"]
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    largest = size + (aligner.adapter / "adapter_model.safetensors").stat().st_size  # the merged one is twice as large

    with largest_file(largest):
        code = main(command)

    said = capsys.readouterr().err
    assert code == 5, said
    assert said.startswith(f"qe-edge: error: {tmp_path / where}")
    assert "cannot be written: " in said
    assert len(said.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_found_before_the_runs_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    granted = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path and granted(path, mode))

    with pytest.raises(OutputError, match="allows no new files; give another -o"):
        merge_runs(tmp_path / "no", tmp_path / "run", tmp_path / "out", [(1.0, 0.0)], [], None, CPU, silent)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ("et-en\ta\tb\t1\net-en\tc\td\t1\n", "dev rows of et-en: 2 with one score"),
        ("et-en\ta\tb\t1\n", "dev rows of et-en: 1 with one score"),
        ("et-en\t\tb\t1\n", "no dev rows are left"),
    ],
)
def test_dev_rows_that_cannot_be_ranked_are_refused(
    two_runs: tuple[Run, Run], tmp_path: Path, rows: str, expected: str
) -> None:
    task, aligner = two_runs
    (tmp_path / "dev.tsv").write_text("lp\toriginal\ttranslation\tmean\n" + rows, encoding="utf-8")

    with pytest.raises(InputError, match=expected):
        merge_runs(
            task.folder, aligner.folder, tmp_path / "m", [(1.0, 0.0)], [DataFile("dev.tsv")], tmp_path, CPU, silent
        )


def test_the_command_reads_tables_pairs_and_weights(two_runs: tuple[Run, Run], tmp_path: Path) -> None:
    task, aligner = two_runs
    rows = "".join(f"{text}\tgood {text}\t{score}\n" for text, score in (("a", 10), ("b", 60), ("c", 90)))
    (tmp_path / "one.tsv").write_text("original\ttranslation\tmean\n" + rows, encoding="utf-8")
    app = typer.Typer()
    app.command()(merge_adapters)
    arguments = [str(task.folder), str(aligner.folder), "-o", str(tmp_path / "merged"), "--dev", "one.tsv"]
    arguments += ["--lp", "et-en", "--data", str(tmp_path), "--grid", "1,1:0.5", "--device", "cpu"]

    result = CliRunner().invoke(app, arguments, catch_exceptions=False)

    assert result.exit_code == 0
    assert "3 dev rows, 2 combinations of weights" in result.stderr
    assert result.stdout.splitlines()[0].split() == ["task", "other", "et-en", "mean"]
    assert list(open_run(tmp_path / "merged").facts.dev["pairs"]) == ["et-en"]


def test_weights_and_tables_are_parsed_and_wrong_ones_named() -> None:
    assert parse_grid("0.9, 1:0.5,0:1") == [(0.9, 0.1), (1.0, 0.5), (0.0, 1.0)]
    assert dev_tables(["a", "b"], ["et-en"]) == [DataFile("a", "et-en"), DataFile("b", "et-en")]
    assert dev_tables(["a", "b"], ["et-en", "ne-en"]) == [DataFile("a", "et-en"), DataFile("b", "ne-en")]
    assert dev_tables(["a", "b"], []) == [DataFile("a"), DataFile("b")]
    assert dev_tables([], []) == []
    for wrong in ("a", "0.5,", "0:0", "nan"):
        with pytest.raises(UsageError, match="--grid: "):
            parse_grid(wrong)
    for twice in ("1,1", "0.5,0,0.5:0.5"):
        with pytest.raises(UsageError, match="are given twice; give each once"):
            parse_grid(twice)
    with pytest.raises(UsageError, match=r"--dev, --lp: a: lp = 'xx-yy': unknown language 'xx'"):
        dev_tables(["a"], ["xx-yy"])
    for paths, pairs in (([], ["et-en"]), (["a", "b", "c"], ["et-en", "ne-en"])):
        with pytest.raises(UsageError, match="give one for all, or one each"):
            dev_tables(paths, pairs)
