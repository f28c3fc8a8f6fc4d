"""What a run was trained on and what it has found so far must still be there when it is continued or used."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from qe_edge.errors import InputError, UsageError
from qe_edge_train.build import adapted_decoder
from qe_edge_train.recipe import Recipe
from qe_edge_train.session import train_run

CPU = torch.device("cpu")


def silent(line: str) -> None:
    """Progress nobody reads."""


def stopped_after_its_first_evaluation(recipe: Recipe, folder: Path, tables: Path) -> Recipe:
    """The recipe of an interrupted run whose checkpoint knows of a best step."""
    often = dataclasses.replace(recipe, evaluation=dataclasses.replace(recipe.evaluation, checkpoint_minutes=0.0))
    evaluations: list[str] = []

    def stop(line: str) -> None:
        evaluations.extend([line] if line.startswith("dev at step") else [])
        if len(evaluations) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_run(often, folder, tables, CPU, stop)
    return often


def test_weights_of_another_base_under_the_same_name_are_refused(recipe: Recipe, tables: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(recipe.base.model, tmp_path / "base"))
    mine = dataclasses.replace(recipe, base=dataclasses.replace(recipe.base, model=str(base)))
    often = stopped_after_its_first_evaluation(mine, tmp_path / "stopped", tables)
    run = train_run(mine, tmp_path / "run", tables, CPU, silent)
    adapted_decoder(run, CPU)
    weights = load_file(base / "model.safetensors")
    otherwise = {name: tensor * 1.01 for name, tensor in weights.items()}
    save_file(otherwise, base / "model.safetensors", {"format": "pt"})

    with pytest.raises(UsageError, match=r"its weights are not those that .*run was trained on"):
        adapted_decoder(run, CPU)
    with pytest.raises(InputError, match=r"checkpoint\.pt: the weights of the base have changed since"):
        train_run(often, tmp_path / "stopped", tables, CPU, silent)


@pytest.mark.parametrize("part", ["head.safetensors", "adapter"])
def test_an_interrupted_run_without_its_best_adapter_or_head_is_refused_at_once(
    recipe: Recipe, tables: Path, tmp_path: Path, part: str
) -> None:
    often = stopped_after_its_first_evaluation(recipe, tmp_path / "run", tables)
    (tmp_path / "run" / part).rename(tmp_path / "away")
    before = (tmp_path / "run" / "checkpoint.pt").read_bytes()

    with pytest.raises(InputError, match=rf"{part}: missing; the run folder is incomplete"):
        train_run(often, tmp_path / "run", tables, CPU, silent)

    assert (tmp_path / "run" / "checkpoint.pt").read_bytes() == before


def test_a_model_that_diverges_in_its_last_step_is_no_finished_run(
    recipe: Recipe, tables: Path, tmp_path: Path
) -> None:
    steep = dataclasses.replace(
        recipe,
        optimiser=dataclasses.replace(recipe.optimiser, learning_rate=1e30, epochs=1, batch_size=48, warmup=0.0),
        evaluation=dataclasses.replace(recipe.evaluation, per_epoch=1),
    )
    with pytest.raises(InputError, match=r"dev scores are no finite numbers: lower \[optimiser\] learning_rate"):
        train_run(steep, tmp_path / "run", tables, CPU, silent)
    assert not (tmp_path / "run" / "run.json").exists()
