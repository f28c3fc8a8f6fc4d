"""What a sweep finds out before its first training: folders, tables, parallel texts, layers and runs that are there."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import torch

from qe_edge.errors import InputError, OutputError, UsageError
from qe_edge_train import data
from qe_edge_train.recipe import Adapter, Alignment, Allocation, ParallelText, Recipe, Target, recipe_table
from qe_edge_train.run import save_facts
from qe_edge_train.session import train_run
from qe_edge_train.sweep.check import check_sweep
from qe_edge_train.sweep.command import sweep
from qe_edge_train.sweep.plan import PlannedRun

CPU = torch.device("cpu")


def silent(line: str) -> None:
    """Progress nobody reads."""


@pytest.fixture
def short(recipe: Recipe) -> Recipe:
    """Two optimiser steps of the tiny recipe."""
    train = (dataclasses.replace(recipe.train[0], rows=16),)
    return dataclasses.replace(recipe, optimiser=dataclasses.replace(recipe.optimiser, epochs=1), train=train)


@pytest.fixture
def own_tables(tables: Path, tmp_path: Path) -> Path:
    """Tables, and ten parallel lines in two languages, that a test may change."""
    folder = tmp_path / "data"
    shutil.copytree(tables, folder)
    for language in ("en", "et"):
        lines = [f"{language} {number}\n" for number in range(10)]
        (folder / f"{language}.txt").write_text("".join(lines), encoding="utf-8")
    return folder


def aligned(recipe: Recipe, **options: Any) -> Recipe:
    texts = (ParallelText("en.txt", "en"), ParallelText("et.txt", "et"))
    chosen = {"layer": 1, "pairs_per_batch": 4, "held_out": 4, "texts": texts, **options}
    return dataclasses.replace(recipe, alignment=Alignment(**chosen))


def planned(recipe: Recipe) -> list[PlannedRun]:
    return [PlannedRun("one", "", {}, recipe)]


def test_data_that_can_be_learnt_from_are_let_through(short: Recipe, own_tables: Path, tmp_path: Path) -> None:
    check_sweep(planned(short) + planned(aligned(short)), tmp_path / "out", own_tables)

    assert not (tmp_path / "out").exists()


def test_tables_that_a_later_run_cannot_learn_from_are_found_before_the_first(
    short: Recipe, own_tables: Path, tmp_path: Path
) -> None:
    asked = {"grid": {"target.column": ["mean", "median"]}}
    path = tmp_path / "sweep.toml"
    path.write_text(tomli_w.dumps({**recipe_table(short), "sweep": asked}), encoding="utf-8")

    with pytest.raises(InputError, match=r"^column-median: .*train.tsv:1: no column `median`; columns are lp, orig"):
        sweep(path, tmp_path / "out", data=own_tables, device="cpu", quiet=True)

    assert not (tmp_path / "out").exists()


def test_rows_are_checked_and_not_only_columns(short: Recipe, own_tables: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    header = "lp\toriginal\ttranslation\tmean\n"
    dev = own_tables / "dev.tsv"
    dev.write_text(header + "et-en\ta\tb\tgood\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"^one: .*dev.tsv:2: column `mean` holds 'good', not a finite number"):
        check_sweep(planned(short), out, own_tables)

    dev.write_text(header + "et-en\ta\tb\t1\net-en\tc\td\t1\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"^one: dev rows of et-en: 2 with one score"):
        check_sweep(planned(short), out, own_tables)

    shutil.copy(own_tables / "train.tsv", dev)
    with pytest.raises(InputError, match=r"^one: no training rows are left"):
        check_sweep(planned(short), out, own_tables)


def test_training_scores_without_a_difference_are_found(short: Recipe, own_tables: Path, tmp_path: Path) -> None:
    header = "lp\toriginal\ttranslation\tmean\n"
    rows = "et-en\ta\tb\t50\net-en\tc\td\t50\n"
    (own_tables / "train.tsv").write_text(header + rows, encoding="utf-8")
    with pytest.raises(InputError, match=r"^one: 2 training rows without two different scores"):
        check_sweep(planned(short), tmp_path / "out", own_tables)

    (own_tables / "train.tsv").write_text(header + rows + "ne-en\ta\tb\t1\nne-en\tc\td\t2\n", encoding="utf-8")
    balanced = dataclasses.replace(short, target=Target(balance="inverse_sd"))
    check_sweep(planned(short), tmp_path / "out", own_tables)
    with pytest.raises(InputError, match=r"^one: all training scores of et-en are the same"):
        check_sweep(planned(balanced), tmp_path / "out", own_tables)


@pytest.mark.parametrize("method", ["alpha", "uniform"])
def test_adapters_that_cannot_be_shared_out_are_found_without_weights(
    short: Recipe, tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: Any
) -> None:
    monkeypatch.setattr("qe_edge_train.build.load_unquantised", pytest.fail)
    shared = Allocation(method)

    def check(**options: Any) -> None:
        check_sweep(
            planned(dataclasses.replace(short, adapter=Adapter(allocation=shared, **options))), tmp_path / "out", tables
        )

    check(frozen_blocks=2)
    check(kind="experts", experts=1)
    check(kind="rank_per_block", rank=1, frozen_blocks=2)
    with pytest.raises(InputError, match=r"^one: \[adapter\] frozen_blocks = 3: only 3 blocks are kept"):
        check(frozen_blocks=3)


def test_a_prompt_beyond_the_token_limit_is_found(short: Recipe, tables: Path, tmp_path: Path) -> None:
    def check(limit: int) -> None:
        head = dataclasses.replace(short.head, prompt="{sl} {tl}: {src} = {mt}", token_limit=limit)
        check_sweep(planned(dataclasses.replace(short, head=head)), tmp_path / "out", tables)

    least = len("<") + len("Estonian English: ") + len(" = ") + 2  # tokens are characters; <s> is the first
    check(least)
    with pytest.raises(
        InputError, match=rf"^one: \[head\] token_limit = {least - 1}: .* a token of each text take {least}; raise it"
    ):
        check(least - 1)


def test_parallel_texts_are_read_before_the_first_training(short: Recipe, own_tables: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    plan = [*planned(short), PlannedRun("second", "", {}, aligned(short, held_out=10))]
    with pytest.raises(InputError, match=r"^second: \[alignment\] held_out = 10: there are 10 lines"):
        check_sweep(plan, out, own_tables)
    with pytest.raises(InputError, match=r"^one: pairs_per_batch = 7, but the parallel texts have 6 whole lines"):
        check_sweep(planned(aligned(short, pairs_per_batch=7)), out, own_tables)
    with pytest.raises(InputError, match=r"^one: pivot 'ne' is not a language of the parallel texts"):
        check_sweep(planned(aligned(short, pivot="ne")), out, own_tables)

    (own_tables / "et.txt").write_text("only one line\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"^one: .*et.txt: 1 lines, but .*en.txt has 10"):
        check_sweep(planned(aligned(short)), out, own_tables)


def test_the_same_tables_are_read_once_however_many_runs_learn_from_them(
    short: Recipe, own_tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = dataclasses.replace(short, train=(dataclasses.replace(short.train[0], rows=0),))
    seeds = [dataclasses.replace(whole, optimiser=dataclasses.replace(whole.optimiser, seed=seed)) for seed in (1, 2)]
    other = dataclasses.replace(whole, target=Target(column="mean", standardise=True))
    read: list[int] = []

    def counted(*arguments: Any) -> Any:
        read.append(1)
        return data.load_examples(*arguments)

    monkeypatch.setattr("qe_edge_train.sweep.check.load_examples", counted)
    check_sweep([run for one in (*seeds, other) for run in planned(one)], tmp_path / "out", own_tables)

    assert len(read) == 2  # training and dev tables


@pytest.mark.parametrize("changed", ["train.tsv", "et.txt"])
def test_a_finished_run_of_other_data_is_refused(short: Recipe, own_tables: Path, tmp_path: Path, changed: str) -> None:
    out, recipe = tmp_path / "out", aligned(short)
    out.mkdir()
    (out / "sweep.toml").touch()
    train_run(recipe, out / "runs" / "one", own_tables, CPU, silent)
    check_sweep(planned(recipe), out, own_tables)

    path = own_tables / changed
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join([*lines[:2], *reversed(lines[2:])]), encoding="utf-8")

    with pytest.raises(InputError) as caught:
        check_sweep(planned(recipe), out, own_tables)
    assert str(caught.value) == (
        f"{out / 'runs' / 'one'}: its run read another {path}, which has changed since; restore that file, "
        "give another -o, or delete that folder to train it again"
    )


def test_a_finished_run_on_other_weights_of_its_base_is_refused(short: Recipe, tables: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "sweep.toml").touch()
    run = train_run(short, out / "runs" / "one", tables, CPU, silent)
    save_facts(run.folder, dataclasses.replace(run.facts, base_sha256="another"))

    with pytest.raises(UsageError, match=r"its weights are not those that .*one was trained on"):
        check_sweep(planned(short), out, tables)


def test_a_folder_with_a_run_of_another_recipe_is_refused(short: Recipe, tables: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "sweep.toml").touch()
    train_run(short, out / "runs" / "one", tables, CPU, silent)

    with pytest.raises(InputError, match="one: holds a run of another recipe"):
        check_sweep(planned(dataclasses.replace(short, name="other")), out, tables)


def test_what_would_end_a_later_run_ends_the_sweep_before_the_first(
    short: Recipe, tables: Path, tmp_path: Path
) -> None:
    deep = dataclasses.replace(short, head=dataclasses.replace(short.head, taps=(9,)))
    with pytest.raises(UsageError, match="TL-9 does not exist"):
        check_sweep(planned(deep), tmp_path / "out", tables)
    with pytest.raises(InputError, match=r"train.tsv: no such file; check its path and --data"):
        check_sweep(planned(short), tmp_path / "out", tmp_path)
    with pytest.raises(InputError, match=r"one: a training needs a \[\[train\]\] and a \[\[dev\]\] table"):
        check_sweep(planned(dataclasses.replace(short, dev=())), tmp_path / "out", tables)


def test_a_folder_of_other_things_is_not_written_to(short: Recipe, tables: Path, tmp_path: Path) -> None:
    shutil.copy(tables / "dev.tsv", tmp_path)

    with pytest.raises(OutputError, match="holds other files"):
        check_sweep(planned(short), tmp_path, tables)
    with pytest.raises(OutputError, match="is not a folder"):
        check_sweep(planned(short), tmp_path / "dev.tsv", tables)
