"""One whole export of a tiny run: the bundle scores as the trained model does, or there is no bundle."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
import typer
from tokenizers import Tokenizer
from typer.testing import CliRunner

from qe_edge.bundle import Bundle
from qe_edge.errors import GateError, OutputError, UsageError
from qe_edge.prompt import Prompt
from qe_edge.scoring.graph import Graph, KeyValueShape, pad
from qe_edge.tokens import PromptEncoder
from qe_edge_export import export as whole
from qe_edge_export.commands import register
from qe_edge_export.export import base_name, export_run
from qe_edge_export.gate import Bounds
from qe_edge_export.graph import attach_head, export_states
from qe_edge_export.merge import merged_regressor
from qe_edge_export.samples import SampleSizes
from qe_edge_train.heads import RegressionHead
from qe_edge_train.run import Run

SIZES = SampleSizes(calibration=4, refit=20, gate=12)


def silent(line: str) -> None:
    assert line


@pytest.fixture(scope="module")
def run(tiny_run: Callable[[str], Run]) -> Run:
    return tiny_run("none")


@pytest.fixture(scope="module")
def bundle(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return export_run(run.folder, tmp_path_factory.mktemp("out") / "bundle", "fp32", False, silent, sizes=SIZES)


@pytest.fixture(scope="module")
def states(run: Run) -> ir.Model:
    """The graph up to the tapped state, to be cloned."""
    return export_states(merged_regressor(run))


def encoder(bundle: Bundle) -> PromptEncoder:
    spec = bundle.spec
    return PromptEncoder(Tokenizer.from_file(str(bundle.tokenizer)), Prompt(spec.prompt), spec.bos, spec.token_limit)


def test_a_bundle_scores_whole_prompts_as_the_trained_model_does(run: Run, bundle: Bundle) -> None:
    names = ("Estonian", "English")
    rows = [(names, ("maja", "good house")), (names, ("puu on pikk", "bad")), (names, ("jõgi", "a fine river 🙂"))]
    texts = encoder(bundle)
    bodies = [body.ids for body in texts.bodies(rows)]
    prefix = texts.fixed(names).prefix
    graph = Graph(bundle.model, KeyValueShape(bundle.spec.blocks_kept, bundle.spec.kv_heads, bundle.spec.head_dim))

    (scores,) = graph.run(graph.prefix(prefix), *pad(bodies))

    model = merged_regressor(run)
    for body, score in zip(bodies, scores, strict=True):
        prompt = torch.tensor([prefix + body])
        with torch.no_grad():
            expected, _ = model(prompt, torch.tensor([prompt.shape[1] - 1]), None)
        assert score == pytest.approx(float(expected), abs=1e-2)
    assert np.ptp(scores) > 0.5


def test_a_bundle_says_what_it_is(bundle: Bundle) -> None:
    spec = bundle.spec

    assert (spec.name, spec.precision, spec.tap_label, spec.blocks_kept, spec.blocks_total) == (
        "tiny",
        "fp32",
        "TL-2",
        2,
        3,
    )
    assert (spec.base_family, spec.licence, spec.data) == ("llama", "CC0-1.0", ["train.tsv"])
    assert (spec.bos, spec.token_limit, spec.kv_heads, spec.head_dim) == (0, 120, 2, 16)
    assert spec.language_pairs == ["et-en", "ne-en"]
    assert spec.gate["rows"] == 24
    assert spec.gate["max_difference"] <= 0.05
    assert spec.gate["bounds"]["max_difference"] == 0.05
    assert spec.metrics == {"macro_spearman": 0.5}
    assert {"qe-edge", "torch", "onnxruntime"} <= spec.created_with.keys()


def test_no_path_of_the_exporting_machine_is_in_a_bundle(run: Run, bundle: Bundle) -> None:
    text = b"".join((bundle.folder / name).read_bytes() for name in ("bundle.json", "model.onnx"))

    for trace in (
        str(run.folder.parent),
        run.facts.data_folder,
        str(Path(__file__).parent),
        sys.prefix,
        "site-packages",
    ):
        assert trace.encode() not in text
    assert bundle.spec.base_model == Path(run.recipe.base.model).name == base_name(run)


def test_the_same_run_exported_again_gives_the_same_bytes(run: Run, bundle: Bundle, tmp_path: Path) -> None:
    again = export_run(run.folder, tmp_path / "again", "fp32", False, silent, sizes=SIZES)

    assert again.digest == bundle.digest
    for path in bundle.folder.iterdir():
        assert path.read_bytes() == (again.folder / path.name).read_bytes()


def test_an_export_that_scores_differently_is_not_written(
    run: Run, states: ir.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoiled(model: ir.Model, head: RegressionHead) -> None:
        head.shift += 1
        attach_head(model, head)

    monkeypatch.setattr(whole, "export_states", lambda model: states.clone())
    monkeypatch.setattr(whole, "attach_head", spoiled)

    with pytest.raises(GateError, match=r"fp32: largest difference from the trained model's scores is 1"):
        export_run(run.folder, tmp_path / "bundle", "fp32", False, silent, sizes=SIZES)

    assert list(tmp_path.iterdir()) == []


def test_nothing_is_computed_for_a_place_that_may_not_be_written(run: Run, bundle: Bundle) -> None:
    said: list[str] = []

    with pytest.raises(OutputError, match="--force to replace it"):
        export_run(run.folder, bundle.folder, "fp32", False, said.append, sizes=SIZES)

    assert said == []


def test_an_unknown_precision_is_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown precision 'int3'; known are fp32, w8a8"):
        export_run(run.folder, tmp_path / "bundle", "int3", False, silent)


def test_eight_bits_keep_the_scores_and_shrink_the_weights(
    run: Run, bundle: Bundle, states: ir.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole, "export_states", lambda model: states.clone())
    # 12 rows a pair of a model that learnt nothing say little of correlations: the real bounds are for hundreds
    monkeypatch.setattr(whole, "BOUNDS", {"w8a8": Bounds(5, 2, movement=0.01, spearman_with_trained=0.9, loss=0.2)})

    small = export_run(run.folder, tmp_path / "bundle", "w8a8", False, silent, sizes=SIZES)

    assert small.spec.precision == "w8a8"
    assert small.spec.gate["movement_alone"] <= 0.01
    assert 0 < small.spec.gate["mean_difference"] <= 2
    weights = "model.onnx.data"
    assert (small.folder / weights).stat().st_size < 0.6 * (bundle.folder / weights).stat().st_size


def application() -> typer.Typer:
    app = typer.Typer()
    app.callback()(lambda: None)
    register(app)
    return app


def test_the_command_exports_from_another_data_folder(
    run: Run, states: ir.Model, tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole, "export_states", lambda model: states.clone())
    facts = json.loads((run.folder / "run.json").read_text(encoding="utf-8"))
    moved = tmp_path / "run"
    moved.mkdir()
    for path in run.folder.iterdir():
        (moved / path.name).symlink_to(path)
    (moved / "run.json").unlink()
    (moved / "run.json").write_text(json.dumps({**facts, "data_folder": str(tmp_path / "gone")}), encoding="utf-8")
    arguments = ["export", str(moved), "-o", str(tmp_path / "bundle"), "--precision", "fp32", "--data", str(tables)]

    result = CliRunner().invoke(application(), arguments, catch_exceptions=False)

    assert result.exit_code == 0
    assert result.stdout == ""
    assert f"{tmp_path / 'bundle'}: tiny@" in result.stderr.splitlines()[-1]
    assert (tmp_path / "bundle" / "bundle.json").is_file()


def test_the_command_is_light_to_import() -> None:
    heavy = {"torch", "transformers", "peft", "onnx", "onnx_ir", "onnxruntime"}
    code = f"import sys, qe_edge_export.commands; print(sorted({heavy} & sys.modules.keys()))"

    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert result.stdout.strip() == "[]"
