"""From a sweep file to its trainings, worked by hand, and what is refused before anything runs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from qe_edge.errors import InputError
from qe_edge_train.sweep.plan import PlannedRun, load_sweep

RECIPE = """
name = "base"
[base]
model = "some/model"
[[train]]
path = "train.tsv"
[[dev]]
path = "dev.tsv"
"""

ALIGNMENT = """
[alignment]
layer = 3
[[alignment.texts]]
path = "a.txt"
language = "en"
[[alignment.texts]]
path = "b.txt"
language = "et"
"""


def plan(folder: Path, sweep: str, recipe: str = RECIPE) -> list[PlannedRun]:
    path = folder / "sweep.toml"
    path.write_text(recipe + sweep, encoding="utf-8")
    return load_sweep(path)


def test_a_grid_is_every_combination_the_last_key_fastest(tmp_path: Path) -> None:
    runs = plan(tmp_path, '[sweep.grid]\n"head.taps" = [[11], [16]]\n"optimiser.seed" = [1, 2, 3]\n')

    assert [run.name for run in runs] == [
        "taps-11_seed-1",
        "taps-11_seed-2",
        "taps-11_seed-3",
        "taps-16_seed-1",
        "taps-16_seed-2",
        "taps-16_seed-3",
    ]
    assert [(run.recipe.head.taps, run.recipe.optimiser.seed) for run in runs] == [
        (taps, seed) for taps in ((11,), (16,)) for seed in (1, 2, 3)
    ]
    assert {run.configuration for run in runs[:3]} == {"taps-11"}
    assert {run.recipe.base.model for run in runs} == {"some/model"}


def test_keys_without_quotes_mean_the_same(tmp_path: Path) -> None:
    quoted = plan(tmp_path, '[sweep.grid]\n"adapter.allocation.beta" = [1.0, 2.5]\n')

    assert plan(tmp_path, "[sweep.grid]\nadapter.allocation.beta = [1.0, 2.5]\n") == quoted
    assert [run.recipe.adapter.allocation.beta for run in quoted] == [1.0, 2.5]


def test_a_byte_order_mark_before_a_sweep_is_no_part_of_it(tmp_path: Path) -> None:
    grid = "[sweep.grid]\nhead.taps = [[11], [16]]\n"

    assert plan(tmp_path, grid, "\ufeff" + RECIPE) == plan(tmp_path, grid)


def test_variants_are_crossed_with_the_grid_and_can_drop_tables(tmp_path: Path) -> None:
    sweep = """
[sweep.grid]
"adapter.rank" = [8, 32]
[[sweep.variant]]
name = "joint training"
[[sweep.variant]]
name = "task only"
drop = ["alignment"]
set = { "optimiser.learning_rate" = 1e-4, "base.quantisation" = "none" }
"""
    runs = plan(tmp_path, sweep, RECIPE + ALIGNMENT)

    assert [run.name for run in runs] == [
        "joint-training_rank-8",
        "joint-training_rank-32",
        "task-only_rank-8",
        "task-only_rank-32",
    ]
    assert [run.recipe.alignment is None for run in runs] == [False, False, True, True]
    assert [run.recipe.optimiser.learning_rate for run in runs] == [2e-4, 2e-4, 1e-4, 1e-4]
    assert [run.recipe.adapter.rank for run in runs] == [8, 32, 8, 32]
    assert runs[3].recipe.base.quantisation == "none"
    assert runs[3].variant == "task only"


def test_variants_alone_are_enough(tmp_path: Path) -> None:
    runs = plan(tmp_path, '[[sweep.variant]]\nname = "plain"\n')

    assert [(run.name, run.configuration, run.varied) for run in runs] == [("plain", "plain", {})]


def test_a_sweep_over_seeds_alone_is_one_configuration(tmp_path: Path) -> None:
    runs = plan(tmp_path, '[sweep.grid]\n"optimiser.seed" = [4, 5]\n')

    assert [(run.name, run.configuration) for run in runs] == [("seed-4", "recipe"), ("seed-5", "recipe")]


def test_names_keep_apart_keys_with_the_same_last_part_and_hold_no_path(tmp_path: Path) -> None:
    sweep = '[sweep.grid]\n"base.name" = ["x"]\n"name" = ["y"]\n"base.model" = ["../models/one two"]\n'
    runs = plan(tmp_path, sweep + '"head.taps" = [[7, 8]]\n"head.bias" = [true]\n"head.strategy" = ["multi"]\n')

    assert [run.name for run in runs] == [
        "base.name-x_name-y_model-..-models-one-two_taps-7+8_bias-true_strategy-multi",
    ]


def test_long_values_become_their_start_and_a_hash_and_stay_apart(tmp_path: Path) -> None:
    prompt = "Rate from 0 to 100 how well the translation says what the source says, and how well it reads" + " !" * 200
    prompts = json.dumps([f"{prompt} {end}: {{src}} {{mt}}" for end in ("first", "second")])

    names = [run.name for run in plan(tmp_path, f'[sweep.grid]\n"head.prompt" = {prompts}\n"optimiser.seed" = [7]\n')]

    assert len(set(names)) == 2
    for name in names:
        assert re.fullmatch(r"prompt-Rate-from-0-to-100-how-well-[\w-]+-[0-9a-f]{8}_seed-7", name)
        assert len(name) == len("prompt-_seed-7") + 80


@pytest.mark.parametrize(
    ("sweep", "expected"),
    [
        ("", "[sweep] must be a table, and there is none"),
        ("[sweep]\n", "[sweep] is empty: add [sweep.grid] or [[sweep.variant]]"),
        (
            f'[[sweep.variant]]\nname = "{"é" * 128}"\n',
            f"the folder {'é' * 128} would have a name of more than 255 bytes",
        ),
        ("[sweep.grids]\nx = [1]\n", "unknown key `grids` in [sweep]; valid are grid, variant"),
        ('[sweep.grid]\n"head.tap" = [[1]]\n', "sweep.toml [tap-1]: unknown key `head.tap`; nearest valid key: `taps`"),
        ('[sweep.grid]\n"adapter.rank" = 8\n', "[sweep.grid] `adapter.rank` = 8: give a list of values, as [8]"),
        ('[sweep.grid]\n"adapter.rank" = []\n', "[sweep.grid] `adapter.rank` = []: give a list of values, as [1, 2]"),
        ('[sweep.grid]\n"adapter.rank" = [0]\n', "[rank-0]: [adapter] rank = 0: must be at least 1"),
        ('[sweep.grid]\n"adapter.rank" = [8, 8]\n', "2 runs would be called rank-8; give each value and variant once"),
        ('[sweep.grid]\n"name.x" = [1]\n', "`name.x`: `name` is not a table of the recipe"),
        ('[sweep.grid]\ntrain = [[{path = "a"}]]\n', "`train`: tables cannot be varied here"),
        ('[[sweep.variant]]\nset = {"adapter.rank" = 4}\n', "a [[sweep.variant]] needs a name"),
        *(
            (
                f'[[sweep.variant]]\nname = "{name}"\n',
                f"needs a name with a letter or digit, as 'task only', not '{name}'",
            )
            for name in ("", ".", "..", "-", "/")
        ),
        ('[[sweep.variant]]\nname = "a"\nsets = {}\n', "unknown key `sets` in [[sweep.variant]]"),
        ('[[sweep.variant]]\nname = "a"\ndrop = "alignment"\n', "drop = 'alignment': give a list of keys"),
        ('[[sweep.variant]]\nname = "a"\ndrop = ["alignment"]\n', "[a]: drop: the recipe has no `alignment`"),
        ('[sweep.variant]\nname = "a"\n', "variants are an array of tables: write [[sweep.variant]]"),
        (
            '[sweep.grid]\n"adapter.rank" = [1]\n[[sweep.variant]]\nname = "a"\nset = {"adapter.rank" = 4}\n',
            "variant 'a' sets `adapter.rank`, which [sweep.grid] varies",
        ),
        (
            '[sweep.grid]\n"evaluation.per_epoch" = [1]\n[[sweep.variant]]\nname = "a"\ndrop = ["evaluation"]\n',
            "variant 'a' drops `evaluation`, but [sweep.grid] varies `evaluation.per_epoch`",
        ),
    ],
)
def test_a_file_that_makes_no_runs_is_refused_by_name(tmp_path: Path, sweep: str, expected: str) -> None:
    with pytest.raises(InputError) as caught:
        plan(tmp_path, sweep)

    assert str(caught.value).startswith(str(tmp_path / "sweep.toml"))
    assert expected in str(caught.value)
