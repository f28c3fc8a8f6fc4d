"""Recipes: defaults are the published settings, mistakes are refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import tomli_w

from qe_edge.errors import InputError
from qe_edge_train.recipe import Lora, Recipe, Target, load_recipe, parse_recipe, recipe_table

MINIMAL = {"base": {"model": "b"}, "train": [{"path": "t.tsv"}], "dev": [{"path": "d.tsv"}]}


def test_defaults_are_the_published_alope_settings() -> None:
    recipe = parse_recipe(MINIMAL, "r.toml")

    assert recipe.lora == Lora(rank=32, alpha=16, dropout=0.0)
    assert recipe.target == Target(column="mean", standardise=False, loss_weight=0.002)
    assert (recipe.optimiser.epochs, recipe.optimiser.batch_size, recipe.optimiser.learning_rate) == (1, 8, 2e-4)
    assert (recipe.optimiser.schedule, recipe.optimiser.clip) == ("constant", 1.0)
    assert recipe.base.quantisation == "nf4"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"optimizer": {}}, "unknown key `optimizer`; nearest valid key: `optimiser`"),
        ({"lora": {"rnak": 8}}, "unknown key `lora.rnak`; nearest valid key: `rank`"),
        ({"lora": {"rank": "8"}}, "`lora.rank` = '8': a value of type int is expected"),
        ({"lora": {"rank": True}}, "`lora.rank` = True: a value of type int is expected"),
        ({"lora": 3}, "[lora] must be a table of keys, not 3"),
        ({"base": {"model": "b", "quantisation": "int3"}}, "must be one of 'nf4', 'none'"),
        ({"base": {}}, "[base] model is missing"),
        ({"train": []}, "no training data"),
        ({"train": "t.tsv"}, "`train` must be an array of tables: [[train]]"),
        ({"dev": []}, "no dev data"),
        ({"head": {"tap": 0}}, "taps count from 1"),
        ({"head": {"prompt": "rate {mt}"}}, "it needs {src} and then {mt}"),
        ({"optimiser": {"batch_size": 8, "micro_batch_size": 3}}, "not a multiple of micro_batch_size = 3"),
        ({"optimiser": {"batch_size": 0}}, "batch_size = 0 is not a multiple"),
        ({"lora": {"dropout": 1.5}}, "[lora] dropout = 1.5: 0 <= dropout < 1"),
        ({"evaluation": {"rows_per_pair": 1}}, "rows_per_pair = 1: 0 for all, or at least 2"),
        ({"optimiser": {"gradient_checkpointing": True}}, "needs share_prefix = false"),
    ],
)
def test_mistakes_are_named_with_file_and_remedy(change: dict[str, object], expected: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_recipe({**MINIMAL, **change}, "r.toml")

    assert str(caught.value).startswith("r.toml: ")
    assert expected in str(caught.value)


def test_an_integer_is_accepted_where_a_number_is_expected() -> None:
    assert parse_recipe({**MINIMAL, "lora": {"dropout": 0}}, "r.toml").lora.dropout == 0.0


def test_the_resolved_recipe_reads_back_as_itself(tmp_path: Path, recipe: Recipe) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(tomli_w.dumps(recipe_table(recipe)), encoding="utf-8")

    assert load_recipe(path) == recipe


def test_unreadable_recipe_files_are_refused(tmp_path: Path) -> None:
    broken = tmp_path / "broken.toml"
    broken.write_text("name = [", encoding="utf-8")
    for path, expected in (
        (tmp_path / "none.toml", "no such recipe"),
        (tmp_path, "is a folder"),
        (broken, "not valid"),
    ):
        with pytest.raises(InputError, match=expected):
            load_recipe(path)
