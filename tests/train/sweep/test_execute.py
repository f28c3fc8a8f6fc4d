"""Whole sweeps on a tiny decoder: results, resuming after interruptions, and failures."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
import torch
import typer

from qe_edge.errors import InputError
from qe_edge_train.recipe import Recipe, recipe_table
from qe_edge_train.run import Run, open_run
from qe_edge_train.session import train_run
from qe_edge_train.sweep.check import check_sweep
from qe_edge_train.sweep.command import sweep
from qe_edge_train.sweep.execute import run_sweep
from qe_edge_train.sweep.plan import PlannedRun, load_sweep

CPU = torch.device("cpu")
SEEDS: dict[str, Any] = {"grid": {"optimiser.seed": [1, 2]}}


def silent(line: str) -> None:
    """Progress nobody reads."""


def write(recipe: Recipe, asked: dict[str, Any], path: Path) -> Path:
    path.write_text(tomli_w.dumps({**recipe_table(recipe), "sweep": asked}), encoding="utf-8")
    return path


@pytest.fixture
def short(recipe: Recipe) -> Recipe:
    """Four optimiser steps of the tiny recipe, evaluated and saved in the middle and at the end."""
    return dataclasses.replace(
        recipe,
        optimiser=dataclasses.replace(recipe.optimiser, epochs=1),
        evaluation=dataclasses.replace(recipe.evaluation, per_epoch=2),
        train=(dataclasses.replace(recipe.train[0], rows=32),),
    )


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_a_sweep_writes_every_run_and_a_summary(
    short: Recipe, tables: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = {"head.taps": [[2], [3]], "optimiser.seed": [1, 2]}
    path, out = write(short, {"grid": grid}, tmp_path / "sweep.toml"), tmp_path / "out"

    sweep(path, out, data=tables, device="cpu", quiet=True)

    rows = rows_of(out / "results.csv")
    assert [row["run"] for row in rows] == ["taps-2_seed-1", "taps-2_seed-2", "taps-3_seed-1", "taps-3_seed-2"]
    assert [row["blocks_kept"] for row in rows] == ["3", "3", "2", "2"]
    for row in rows:
        run = open_run(out / "runs" / row["run"])
        assert float(row["macro"]) == pytest.approx(run.facts.dev["macro_spearman"], abs=5e-5)
        assert float(row["ne-en"]) == pytest.approx(run.facts.dev["pairs"]["ne-en"]["spearman"], abs=5e-5)
        assert int(row["trainable"]) == run.facts.trainable
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))["summary"]
    assert [one["configuration"] for one in summary] == ["taps-2", "taps-3"]
    assert summary[0]["macro"]["mean"] == pytest.approx(
        (float(rows[0]["macro"]) + float(rows[1]["macro"])) / 2, abs=1e-4
    )
    assert summary[1]["difference"]["runs"] == 2
    assert (out / "sweep.toml").read_bytes() == path.read_bytes()
    assert (out / "summary.png").is_file()
    assert (out / "summary.svg").is_file()
    assert len(rows_of(out / "summary.csv")) == 2
    assert capsys.readouterr().out.splitlines()[1].startswith("taps-2")


def test_an_interrupted_sweep_keeps_what_is_finished_and_continues_the_rest(
    short: Recipe, tables: Path, tmp_path: Path
) -> None:
    plan = load_sweep(write(short, SEEDS, tmp_path / "sweep.toml"))
    whole = train_run(plan[1].recipe, tmp_path / "whole", tables, CPU, silent)
    out = tmp_path / "out"
    out.mkdir()
    (out / "sweep.toml").touch()

    def stop_in_the_second(line: str) -> None:
        saved = (out / "runs" / "seed-2" / "checkpoint.pt").exists()
        if line.startswith("dev at step") and saved:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_sweep(plan, out, tables, CPU, stop_in_the_second)
    assert [row["run"] for row in rows_of(out / "results.csv")] == ["seed-1"]
    assert not (out / "runs" / "seed-2" / "run.json").exists()
    first = (out / "runs" / "seed-1" / "run.json").stat().st_mtime_ns
    lines: list[str] = []
    check_sweep(plan, out, tables)
    again = run_sweep(plan, out, tables, CPU, lines.append)

    assert any(line.startswith("resumed at step") for line in lines)
    assert (out / "runs" / "seed-1" / "run.json").stat().st_mtime_ns == first
    assert again[1].macro == pytest.approx(whole.facts.dev["macro_spearman"], abs=1e-6)
    assert [row["run"] for row in rows_of(out / "results.csv")] == ["seed-1", "seed-2"]


def test_a_sweep_can_be_extended(short: Recipe, tables: Path, tmp_path: Path) -> None:
    path, out = tmp_path / "sweep.toml", tmp_path / "out"
    sweep(write(short, {"grid": {"optimiser.seed": [1]}}, path), out, data=tables, device="cpu", quiet=True)
    before = (out / "runs" / "seed-1" / "run.json").read_bytes()

    sweep(write(short, SEEDS, path), out, data=tables, device="cpu", quiet=True)

    assert (out / "runs" / "seed-1" / "run.json").read_bytes() == before
    assert [row["run"] for row in rows_of(out / "results.csv")] == ["seed-1", "seed-2"]


def test_a_run_that_fails_is_reported_and_the_others_go_on(
    short: Recipe, tables: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = {"optimiser.learning_rate": [1e30, 1e-3]}
    out = tmp_path / "out"

    with pytest.raises(typer.Exit) as ended:
        sweep(write(short, {"grid": grid}, tmp_path / "s.toml"), out, data=tables, device="cpu", quiet=True)

    assert ended.value.exit_code == 1
    rows = rows_of(out / "results.csv")
    assert [row["run"] for row in rows] == ["learning_rate-1e+30", "learning_rate-0.001"]
    assert "loss became" in rows[0]["failure"]
    assert rows[0]["macro"] == ""
    assert (rows[1]["failure"], rows[1]["macro"] != "") == ("", True)
    assert "qe-edge: learning_rate-1e+30 failed: the loss became" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(28, "No space left on device"), "OSError: [Errno 28] No space left on device"),
        (ValueError("one\ntwo"), "ValueError: one"),
        (np.linalg.LinAlgError(), "LinAlgError"),
        (torch.cuda.OutOfMemoryError("no memory"), "OutOfMemoryError: no memory"),
        (InputError("table.tsv:3: no score"), "table.tsv:3: no score"),
    ],
)
def test_no_kind_of_error_keeps_the_other_runs_from_running(
    short: Recipe, tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    plan = [PlannedRun(name, "", {}, short) for name in ("first", "second")]

    def breaks(recipe: Recipe, folder: Path, *rest: Any) -> Run:
        raise error if folder.name == "first" else InputError("the second ran")

    monkeypatch.setattr("qe_edge_train.sweep.execute.train_run", breaks)
    results = run_sweep(plan, tmp_path, tables, CPU, silent)

    assert [one.failure for one in results] == [reason, "the second ran"]
    assert [row["failure"] for row in rows_of(tmp_path / "results.csv")] == [reason, "the second ran"]


def test_an_interruption_by_the_user_ends_the_sweep(
    short: Recipe, tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: Any) -> Run:
        raise KeyboardInterrupt

    monkeypatch.setattr("qe_edge_train.sweep.execute.train_run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_sweep([PlannedRun("one", "", {}, short)], tmp_path, tables, CPU, silent)
