"""Whole probes of a tiny decoder: frozen, trained, with retrieval, and what is refused."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
import torch
from numpy.typing import NDArray

from qe_edge.errors import InputError, OutputError, QeEdgeError, UsageError
from qe_edge.metrics import pearson
from qe_edge_train.probe.command import probe
from qe_edge_train.probe.retrieval import LineRange, parse_lines
from qe_edge_train.probe.states import last_token_states
from qe_edge_train.recipe import Alignment, ParallelText, Recipe, recipe_table
from qe_edge_train.session import train_run

WORDS = {"en": ["one", "two", "three", "four", "five", "six"], "et": ["yks", "kaks", "kolm", "neli", "viis", "kuus"]}


def write(recipe: Recipe, path: Path) -> Path:
    path.write_text(tomli_w.dumps(recipe_table(recipe)), encoding="utf-8")
    return path


@pytest.fixture
def aligned(recipe: Recipe, tables: Path, tmp_path: Path) -> tuple[Recipe, Path]:
    """A recipe with 40 parallel lines, of which it trains on 5 to 24 and holds out 25 to 40; its data folder."""
    folder = tmp_path / "data"
    shutil.copytree(tables, folder)
    for language, words in WORDS.items():
        lines = [" ".join(words[(n // 6**i) % 6] for i in range(3)) for n in range(40)]
        (folder / f"{language}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    texts = tuple(ParallelText(f"{language}.txt", language) for language in WORDS)
    alignment = Alignment(first_line=5, lines=20, held_out=16, texts=texts)
    return dataclasses.replace(recipe, alignment=alignment), folder


def test_a_frozen_base_is_measured_at_every_layer(
    recipe: Recipe, tables: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "probe"

    probe(write(recipe, tmp_path / "recipe.toml"), out, data=tables, rows=20, dev_rows=10, device="cpu")

    stored = json.loads((out / "probe.json").read_text(encoding="utf-8"))
    layers = stored["layers"]
    assert [(layer["blocks_kept"], layer["tap"]) for layer in layers] == [(1, 4), (2, 3), (3, 2), (4, 1)]
    assert (stored["train_rows"], stored["dev_rows"]) == ({"et-en": 20, "ne-en": 20}, {"et-en": 10, "ne-en": 10})
    for layer in layers:
        assert layer["macro"] == pytest.approx(sum(layer["pairs"].values()) / 2)
        low, high = layer["macro_interval"]
        assert low < layer["macro"] < high
    best = max(layers, key=lambda layer: layer["macro"])
    assert stored["best"]["tap"] == best["tap"]
    chosen = next(layer for layer in layers if layer["macro"] >= best["macro"] - layer["difference_error"])
    assert stored["recommended"]["blocks_kept"] == chosen["blocks_kept"]
    assert stored["environment"]["torch"] == torch.__version__
    rows = list(csv.DictReader((out / "probe.csv").read_text(encoding="utf-8").splitlines()))
    assert [row["tap"] for row in rows] == ["TL-4", "TL-3", "TL-2", "TL-1"]
    assert float(rows[2]["macro"]) == pytest.approx(layers[2]["macro"], abs=5e-5)
    assert (out / "probe.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (out / "probe.svg").read_text(encoding="utf-8")
    said = capsys.readouterr()
    assert f"recommended  taps = [{chosen['tap']}]: keeps {chosen['blocks_kept']} of 4 blocks" in said.out
    assert "40 training rows, 20 dev rows, 4 layers" in said.err


def test_the_states_of_a_tiny_decoder_say_something_about_the_score(
    recipe: Recipe, tables: Path, tmp_path: Path
) -> None:
    probe(write(recipe, tmp_path / "recipe.toml"), tmp_path / "out", data=tables, rows=0, dev_rows=0, device="cpu")

    stored = json.loads((tmp_path / "out" / "probe.json").read_text(encoding="utf-8"))
    assert max(layer["macro"] for layer in stored["layers"]) > 0.3  # 24 rows without any signal: sd .21


def test_a_trained_run_is_measured_up_to_its_cut_with_its_adapter(recipe: Recipe, tables: Path, tmp_path: Path) -> None:
    run = train_run(recipe, tmp_path / "run", tables, torch.device("cpu"), lambda line: None)

    probe(run.folder, tmp_path / "trained", device="cpu", quiet=True)
    probe(write(recipe, tmp_path / "recipe.toml"), tmp_path / "frozen", data=tables, device="cpu", quiet=True)

    trained, frozen = (json.loads((tmp_path / name / "probe.json").read_text()) for name in ("trained", "frozen"))
    assert [(layer["blocks_kept"], layer["tap"]) for layer in trained["layers"]] == [(1, 4), (2, 3), (3, 2)]
    assert (trained["run"], frozen["run"]) == ("run", None)
    assert trained["layers"][2]["macro"] != frozen["layers"][2]["macro"]


def test_parallel_texts_add_retrieval_on_the_lines_held_out(
    aligned: tuple[Recipe, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, folder = aligned
    out = tmp_path / "probe"

    probe(write(recipe, folder / "recipe.toml"), out, neighbours=3, device="cpu")

    retrieval = json.loads((out / "probe.json").read_text(encoding="utf-8"))["retrieval"]
    assert (retrieval["first_line"], retrieval["last_line"], retrieval["sentences"]) == (25, 40, 16)
    assert (retrieval["languages"], retrieval["neighbours"]) == (["en", "et"], 3)
    for layer in retrieval["layers"]:
        assert layer["accuracy"] == pytest.approx(sum(layer["directions"].values()) / 2)
    best = max(retrieval["layers"], key=lambda layer: layer["accuracy"])
    assert retrieval["best_blocks"] == best["blocks_kept"]
    rows = list(csv.DictReader((out / "probe.csv").read_text(encoding="utf-8").splitlines()))
    assert float(rows[1]["retrieval"]) == pytest.approx(retrieval["layers"][1]["accuracy"], abs=5e-5)
    assert (out / "directions.png").is_file()
    assert "2 languages, 16 lines (25 to 40)" in capsys.readouterr().out


def test_a_layer_without_a_correlation_is_null_in_json_and_left_out_of_every_choice(
    aligned: tuple[Recipe, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, folder = aligned
    measured = last_token_states

    def with_a_constant_first_layer(*arguments: Any) -> NDArray[np.float32]:
        states = measured(*arguments)
        states[:, 0] = 0.0
        return states

    monkeypatch.setattr("qe_edge_train.probe.session.last_token_states", with_a_constant_first_layer)
    probe(write(recipe, folder / "recipe.toml"), tmp_path / "out", device="cpu", quiet=True)

    stored = json.loads((tmp_path / "out" / "probe.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    first, *others = stored["layers"]
    assert first["pairs"] == {"et-en": None, "ne-en": None}
    assert (first["macro"], first["macro_interval"], first["difference_error"]) == (None, [None, None], None)
    best = max(others, key=lambda layer: layer["macro"])
    assert stored["best"]["blocks_kept"] == best["blocks_kept"]
    assert stored["recommended"]["blocks_kept"] > 1
    retrieval = [layer["accuracy"] for layer in stored["retrieval"]["layers"]]
    assert stored["retrieval"]["pearson_with_quality"] == pytest.approx(
        pearson(retrieval[1:], [layer["macro"] for layer in others])
    )
    assert "correlation with dev Spearman over 3 layers" in capsys.readouterr().out
    assert (tmp_path / "out" / "probe.png").is_file()


def test_lines_can_be_chosen_but_not_those_of_training(aligned: tuple[Recipe, Path], tmp_path: Path) -> None:
    recipe, folder = aligned
    path = write(recipe, folder / "recipe.toml")

    with pytest.raises(UsageError, match=r"--lines 1:6: \[alignment\] trains on line 5; give lines outside 5 to 24"):
        probe(path, tmp_path / "overlap", lines="1:6", device="cpu", quiet=True)
    probe(path, tmp_path / "before", lines="1:4", device="cpu", quiet=True)

    stored = json.loads((tmp_path / "before" / "probe.json").read_text(encoding="utf-8"))
    assert stored["retrieval"]["sentences"] == 4


@pytest.mark.parametrize(
    ("held_out", "lines", "neighbours", "expected"),
    [
        (0, None, 4, "no lines to measure retrieval on; raise it or give --lines"),
        (16, "1:3", 4, "3 whole lines, but --neighbours 4 needs as many"),
        (16, "30:40", 4, "has 40 lines, not lines 30 to 69"),
    ],
)
def test_retrieval_without_enough_lines_ends_with_the_remedy(
    aligned: tuple[Recipe, Path], tmp_path: Path, held_out: int, lines: str | None, neighbours: int, expected: str
) -> None:
    recipe, folder = aligned
    assert recipe.alignment is not None
    recipe = dataclasses.replace(recipe, alignment=dataclasses.replace(recipe.alignment, held_out=held_out))

    with pytest.raises(QeEdgeError) as caught:
        probe(write(recipe, folder / "r.toml"), tmp_path / "out", lines=lines, neighbours=neighbours, device="cpu")

    assert expected in str(caught.value)


def test_lines_need_parallel_texts(recipe: Recipe, tables: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no \[alignment\] table"):
        probe(write(recipe, tmp_path / "recipe.toml"), tmp_path / "out", data=tables, lines="1:9", device="cpu")


def test_a_range_of_lines_is_first_and_count() -> None:
    assert parse_lines("1001:200") == LineRange(1001, 200)
    for wrong in ("1001", "0:5", "5:0", "a:b", "1:2:3", "-1:4", ":"):
        with pytest.raises(UsageError, match="give FIRST:COUNT"):
            parse_lines(wrong)


def test_rows_that_cannot_be_learnt_from_or_ranked_end_with_the_remedy(recipe: Recipe, tmp_path: Path) -> None:
    header, path = "lp\toriginal\ttranslation\tmean\n", write(recipe, tmp_path / "recipe.toml")
    (tmp_path / "dev.tsv").write_text(header + "et-en\ta\tb\t1\net-en\tc\td\t2\n", encoding="utf-8")
    (tmp_path / "train.tsv").write_text(header + "et-en\te\tf\t1\net-en\tg\th\t1\n", encoding="utf-8")
    with pytest.raises(InputError, match="2 training rows without two different scores"):
        probe(path, tmp_path / "out", device="cpu")

    (tmp_path / "train.tsv").write_text(header + "et-en\te\tf\t1\net-en\tg\th\t3\n", encoding="utf-8")
    with pytest.raises(InputError, match="dev rows of et-en: 1 with one score"):
        probe(path, tmp_path / "out", dev_rows=1, device="cpu")


def test_an_earlier_probe_is_not_overwritten(recipe: Recipe, tables: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "probe.csv").write_text("mine")

    with pytest.raises(OutputError, match=r"holds other files \(probe.csv\); give a new or empty folder with -o"):
        probe(write(recipe, tmp_path / "recipe.toml"), out, data=tables, device="cpu")

    assert [(path.name, path.read_text()) for path in out.iterdir()] == [("probe.csv", "mine")]
