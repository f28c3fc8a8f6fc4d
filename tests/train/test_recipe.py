"""Recipes: defaults are the published settings, mistakes are refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import tomli_w

from qe_edge.errors import InputError
from qe_edge_train.recipe import (
    Adapter,
    Alignment,
    Allocation,
    Base,
    DataFile,
    Head,
    ParallelText,
    Recipe,
    Target,
    load_recipe,
    parse_recipe,
    recipe_table,
)

MINIMAL = {"base": {"model": "b"}, "train": [{"path": "t.tsv"}], "dev": [{"path": "d.tsv"}]}


def test_defaults_are_the_published_alope_settings() -> None:
    recipe = parse_recipe(MINIMAL, "r.toml")

    assert recipe.adapter == Adapter(rank=32, alpha=16, dropout=0.0)
    assert recipe.target == Target(column="mean", standardise=False, loss_weight=0.002)
    assert (recipe.optimiser.epochs, recipe.optimiser.batch_size, recipe.optimiser.learning_rate) == (1, 8, 2e-4)
    assert (recipe.optimiser.schedule, recipe.optimiser.clip) == ("constant", 1.0)
    assert recipe.base.quantisation == "nf4"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"optimizer": {}}, "unknown key `optimizer`; nearest valid key: `optimiser`"),
        ({"adapter": {"rnak": 8}}, "unknown key `adapter.rnak`; nearest valid key: `rank`"),
        ({"adapter": {"rank": "8"}}, "`adapter.rank` = '8': a value of type int is expected"),
        ({"adapter": {"rank": True}}, "`adapter.rank` = True: a value of type int is expected"),
        ({"adapter": 3}, "[adapter] must be a table of keys, not 3"),
        ({"base": {"model": "b", "quantisation": "int3"}}, "must be one of 'nf4', 'none'"),
        ({"base": {}}, "[base] model is missing"),
        ({"train": "t.tsv"}, "`train` must be an array of tables: [[train]]"),
        ({"train": [{"lp": "et-en"}]}, "a data table has no path"),
        ({"head": {"taps": [0]}}, "taps count from 1"),
        ({"head": {"taps": 2}}, "`head.taps` must be an array of values: head.taps = [...]"),
        ({"head": {"taps": ["2"]}}, "`head.taps` = '2': a value of type int is expected"),
        ({"head": {"taps": []}}, "[head] taps is empty"),
        ({"head": {"taps": [3, 3], "strategy": "multi"}}, "[head] taps = [3, 3]: each tap once"),
        ({"head": {"taps": [1, 3]}}, "strategy 'single' reads one tap; use 'dynamic' or 'multi'"),
        ({"head": {"strategy": "mean"}}, "must be one of 'single', 'dynamic', 'multi'"),
        ({"head": {"prompt": "rate this"}}, "has no text field"),
        ({"optimiser": {"batch_size": 8, "micro_batch_size": 3}}, "not a multiple of micro_batch_size = 3"),
        ({"optimiser": {"batch_size": 0}}, "batch_size = 0 is not a multiple"),
        ({"adapter": {"dropout": 1.5}}, "[adapter] dropout = 1.5: 0 <= dropout < 1"),
        ({"adapter": {"kind": "moe"}}, "must be one of 'lora', 'rank_per_block', 'experts', 'none'"),
        ({"adapter": {"experts": 0.5}}, "[adapter] experts = 0.5: every block needs at least one expert"),
        ({"adapter": {"allocation": {"beta": -1}}}, "[adapter.allocation] beta = -1.0: must not be negative"),
        ({"adapter": {"allocation": {"methd": "alpha"}}}, "unknown key `adapter.allocation.methd`; nearest valid key"),
        ({"alignment": {"temperature": 0}}, "[alignment] temperature = 0.0: must be above 0"),
        ({"alignment": {"pairs_per_batch": 1}}, "[alignment] pairs_per_batch = 1: must be at least 2"),
        ({"alignment": {"first_line": 0}}, "[alignment] first_line = 0: lines count from 1"),
        ({"alignment": {"texts": [{"path": "a.txt"}]}}, "[[alignment.texts]] needs a path and a language"),
        ({"alignment": {"texts": {"path": "a"}}}, "`alignment.texts` must be an array of tables: [[alignment.texts]]"),
        ({"target": {"loss_weight": 0}}, "[target] loss_weight = 0.0: must be above 0"),
        ({"evaluation": {"rows_per_pair": 1}}, "rows_per_pair = 1: 0 for all, or at least 2"),
        ({"evaluation": {"checkpoint_minutes": -3}}, "[evaluation] checkpoint_minutes = -3.0: must not be negative"),
        ({"name": ""}, "name is empty"),
        ({"name": " "}, "name is empty"),
        ({"name": "a\x1b[2Jb"}, "name = 'a\\x1b[2Jb': control characters; remove them"),
        ({"data_name": "a\nb"}, "data_name = 'a\\nb': control characters"),
        ({"base": {"model": "b", "licence": "a\nb"}}, "[base] licence = 'a\\nb': control characters"),
        ({"target": {"scale": "a\rb"}}, "[target] scale = 'a\\rb': control characters"),
        ({"head": {"prompt": "{src}\x07{mt}"}}, "[head] prompt = '{src}\\x07{mt}': control characters"),
        ({"dev": [{"path": "d.tsv", "lp": "xx-yy"}]}, "d.tsv: lp = 'xx-yy': unknown language 'xx'"),
        ({"head": {"token_limit": 0}}, "[head] token_limit = 0: must be at least 2"),
        ({"head": {"token_limit": -5}}, "[head] token_limit = -5: must be at least 2"),
        ({"alignment": {"held_out": 1}}, "[alignment] held_out = 1: retrieval is measured on at least 4 lines"),
        ({"optimiser": {"gradient_checkpointing": True}}, "needs share_prefix = false"),
        ({"optimiser": {"seed": -1}}, "[optimiser] seed = -1: must lie from 0 to 2^63 - 1"),
        ({"optimiser": {"seed": 1 << 63}}, "must lie from 0 to 2^63 - 1"),
        ({"head": {"full_blocks": -1}}, "[head] full_blocks = -1: must not be negative; 0 means all"),
        ({"head": {"full_blocks": 3}, "adapter": {"kind": "experts"}}, "routed experts are balanced over all tokens"),
        (
            {"head": {"full_blocks": 3}, "optimiser": {"gradient_checkpointing": True, "share_prefix": False}},
            "[head] full_blocks: upper blocks share states, which gradient checkpointing would lose",
        ),
    ],
)
def test_mistakes_are_named_with_file_and_remedy(change: dict[str, object], expected: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_recipe({**MINIMAL, **change}, "r.toml")

    assert str(caught.value).startswith("r.toml: ")
    assert expected in str(caught.value)


def test_an_integer_is_accepted_where_a_number_is_expected() -> None:
    assert parse_recipe({**MINIMAL, "adapter": {"dropout": 0}}, "r.toml").adapter.dropout == 0.0


def test_the_resolved_recipe_reads_back_as_itself(tmp_path: Path, recipe: Recipe) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(tomli_w.dumps(recipe_table(recipe)), encoding="utf-8")

    assert load_recipe(path) == recipe


def test_a_byte_order_mark_before_a_recipe_is_no_part_of_it(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(tomli_w.dumps(MINIMAL), encoding="utf-8-sig")

    assert load_recipe(path) == parse_recipe(MINIMAL, "r.toml")


def test_a_prompt_may_have_lines(tmp_path: Path) -> None:
    assert parse_recipe({**MINIMAL, "head": {"prompt": "a\n\t{src}\n{mt}"}}, "r.toml").head.prompt.count("\n") == 2


WHOLE = Recipe(
    base=Base(model="b"),
    head=Head(strategy="dynamic", taps=(2, 4)),
    adapter=Adapter(kind="experts", rank=8, allocation=Allocation(method="mola", beta=0.5)),
    alignment=Alignment(layer=3, symmetric=True, texts=(ParallelText("a.et", "et"), ParallelText("a.en", "en"))),
    train=(DataFile("t.tsv", lp="et-en", rows=9),),
    dev=(DataFile("d.tsv"),),
)


def test_a_recipe_that_uses_every_table_reads_back_as_itself(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(tomli_w.dumps(recipe_table(WHOLE)), encoding="utf-8")

    assert load_recipe(path) == WHOLE


def test_without_an_alignment_table_nothing_is_aligned() -> None:
    assert parse_recipe(MINIMAL, "r.toml").alignment is None
    assert parse_recipe({**MINIMAL, "alignment": {}}, "r.toml").alignment == Alignment()


def test_defaults_of_the_alignment_are_the_published_ones() -> None:
    alignment = Alignment()

    assert (alignment.temperature, alignment.symmetric, alignment.pairs_per_batch) == (0.1, False, 32)


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
