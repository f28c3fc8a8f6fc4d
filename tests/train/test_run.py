"""The files of a run: figures that are undefined are null on the disk, and undefined again when they are read."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

from qe_edge_train.recipe import Adapter, Recipe
from qe_edge_train.run import HISTORY_FILE, RunFacts, append_history, open_run, save_facts, save_recipe


def test_undefined_correlations_are_null_in_every_file_and_nan_in_a_run(tmp_path: Path, recipe: Recipe) -> None:
    dev = {"macro_spearman": math.nan, "pairs": {"et-en": {"n": 3, "spearman": math.nan, "mae": 1.5}}}
    save_recipe(tmp_path, dataclasses.replace(recipe, adapter=Adapter(kind="none")))
    (tmp_path / "tokenizer.json").touch()
    save_facts(tmp_path, facts(dev))
    append_history(tmp_path, {"step": 1, "dev": dev})
    append_history(tmp_path, {"step": 2, "dev": dev})

    written = json.loads((tmp_path / "run.json").read_text(), parse_constant=refuse)
    assert written["dev"] == {"macro_spearman": None, "pairs": {"et-en": {"n": 3, "spearman": None, "mae": 1.5}}}
    lines = (tmp_path / HISTORY_FILE).read_text().splitlines()
    assert [json.loads(line, parse_constant=refuse)["step"] for line in lines] == [1, 2]
    read = open_run(tmp_path).facts.dev
    assert math.isnan(read["macro_spearman"])
    assert math.isnan(read["pairs"]["et-en"]["spearman"])
    assert read["pairs"]["et-en"]["mae"] == 1.5


def refuse(constant: str) -> None:
    """NaN and Infinity are no JSON."""
    raise AssertionError(constant)


def facts(dev: dict[str, object]) -> RunFacts:
    return RunFacts(
        family="llama",
        blocks_total=4,
        blocks_kept=3,
        bos=0,
        head=None,
        adapter=[4, 4, 4],
        trainable=10,
        language_pairs=["et-en"],
        data_folder="data",
        data=[],
        environment={},
        best_step=2,
        dev=dev,
        summary={},
    )
