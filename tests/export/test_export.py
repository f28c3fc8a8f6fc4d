"""One whole export of a tiny run: the bundle scores as the trained model does, or there is no bundle."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import onnx_ir as ir
import pytest
import torch
import typer
from tokenizers import Tokenizer
from typer.testing import CliRunner

from qe_edge.bundle import PRECISIONS, Bundle
from qe_edge.errors import GateError, OutputError, UsageError
from qe_edge.prompt import Prompt
from qe_edge.scoring.graph import Graph, KeyValueShape, pad
from qe_edge.tokens import PromptEncoder
from qe_edge_export import export as whole
from qe_edge_export.commands import export, register
from qe_edge_export.export import base_name, export_run
from qe_edge_export.gate import BOUNDS, Bounds
from qe_edge_export.graph import attach_head
from qe_edge_export.merge import merged_regressor
from qe_edge_export.passes.linear import linears
from qe_edge_export.samples import CalibrationRows, RunBatch, SampleSizes, load_samples
from qe_edge_train.heads import RegressionHead
from qe_edge_train.run import Run
from qe_edge_train.tapped import TappedRegressor

SIZES = SampleSizes(calibration=4, refit=20, gate=12)


def silent(line: str) -> None:
    assert line


@pytest.fixture(scope="module")
def run(tiny_run: Callable[[str], Run]) -> Run:
    return tiny_run("none")


@pytest.fixture(scope="module")
def bundle(run: Run, tiny_states: ir.Model, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(whole, "export_states", lambda model: tiny_states.clone())
        return export_run(run.folder, tmp_path_factory.mktemp("out") / "bundle", "fp32", False, silent, sizes=SIZES)


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


def test_the_last_block_asks_for_one_position_of_a_row(bundle: Bundle, tmp_path: Path) -> None:
    spec = bundle.spec
    shape = KeyValueShape(spec.blocks_kept, spec.kv_heads, spec.head_dim)
    graph = Graph(bundle.model, shape, profile=tmp_path / "profile")
    past = graph.prefix([1, 2])
    graph.scores(past, [[3, 4, 5, 6], [7]])
    events = json.loads(graph.end_profile().read_text(encoding="utf-8"))
    queries = [
        next(iter(event["args"]["input_type_shape"][0].values()))[2]
        for event in events
        if event.get("cat") == "Node" and event["args"].get("op_name") == "Attention" and event["dur"]
    ]
    # twice, so that it is multiplied as the rows of a matrix are (test_single_queries.py)
    assert queries[-spec.blocks_kept :] == [4] * (spec.blocks_kept - 1) + [2]


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


@pytest.mark.usefixtures("exported_before")
def test_an_export_that_scores_differently_is_not_written(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoiled(model: ir.Model, head: RegressionHead) -> None:
        head.shift += 1
        attach_head(model, head)

    monkeypatch.setattr(whole, "attach_head", spoiled)

    with pytest.raises(GateError, match=r"fp32: largest difference from the trained model's scores is 1"):
        export_run(run.folder, tmp_path / "bundle", "fp32", False, silent, sizes=SIZES)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("exported_before")
@pytest.mark.parametrize(("bound", "rows"), [(0.9, 2 * 6), (0.0, 2 * 12)])
def test_a_loss_too_near_its_bound_is_measured_on_more_rows(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: float, rows: int
) -> None:
    loaded: list[Run] = []

    def counted(run: Run) -> TappedRegressor:
        loaded.append(run)
        return merged_regressor(run)

    # on 6 rows a pair a model that learnt nothing is known to lose less than .9, and not whether anything
    monkeypatch.setattr(whole, "BOUNDS", {"int8": Bounds(None, None, 0.05, spearman_with_trained=0.8, loss=bound)})
    monkeypatch.setattr(whole, "enforce", lambda *_: None)
    monkeypatch.setattr(whole, "merged_regressor", counted)
    sizes = replace(SIZES, gate=6, doubt=12)
    lines: list[str] = []

    prepared = whole.prepare(run.folder, ["int8"], lines.append, sizes=sizes)
    first, second = (whole.convert(prepared, "int8", lines.append).figures for _ in range(2))

    assert first == second
    assert (first.rows, first.loss_rows) == (2 * 6, rows)
    more = rows > 2 * 6
    assert len(loaded) == 1 + more  # and not once more for the second
    assert sum("too near 0 to tell" in line for line in lines) == 2 * more
    assert whole.convert(prepared, "int8", silent, loss=0.0).figures.loss_rows == 2 * 12


def test_nothing_is_computed_for_a_place_that_may_not_be_written(run: Run, bundle: Bundle) -> None:
    said: list[str] = []

    with pytest.raises(OutputError, match="--force to replace it"):
        export_run(run.folder, bundle.folder, "fp32", False, said.append, sizes=SIZES)

    assert said == []


def test_an_unknown_precision_is_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown precision 'int3'; known are fp32, fp16, w8a8, w4a8, int8, int4"):
        export_run(run.folder, tmp_path / "bundle", "int3", False, silent)


@pytest.mark.usefixtures("exported_before")
@pytest.mark.parametrize(
    ("precision", "mean", "size"),
    [("fp16", 0.05, 0.52), ("w8a8", 2, 0.6), ("w4a8", 4, 0.5), ("int8", 2, 0.6), ("int4", 4, 0.5)],
)
def test_every_precision_keeps_the_scores_and_shrinks_the_weights(
    run: Run,
    bundle: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
    mean: float,
    size: float,
) -> None:
    # 12 rows a pair of a model that learnt nothing say little of correlations: the real bounds are for hundreds
    bounds = Bounds(None, mean, movement=0.05, spearman_with_trained=0.8, loss=0.3)
    monkeypatch.setattr(whole, "BOUNDS", {precision: bounds})

    small = export_run(run.folder, tmp_path / "bundle", precision, False, silent, sizes=SIZES)

    assert small.spec.precision == precision
    assert small.spec.gate["mean_difference"] > 0
    weights = "model.onnx.data"
    assert (small.folder / weights).stat().st_size < size * (bundle.folder / weights).stat().st_size


@pytest.mark.usefixtures("exported_before")
@pytest.mark.parametrize(("precision", "before"), [("fp16", 0), ("int4", 0), ("w8a8", 1), ("w4a8", 1)])
def test_activations_are_measured_on_whole_prompts(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, before: int
) -> None:
    """before: how often rows are run for smoothing first, as they are scored, after their prefix."""

    class StoppedError(Exception):
        pass

    prefixes = load_samples(run, Path(run.facts.data_folder), SIZES).calibration.prefixes.values()
    run_rows = CalibrationRows.run
    earlier: list[list[list[int]]] = []

    def look(rows: CalibrationRows, model: ir.Model, outputs: Sequence[str]) -> Iterator[RunBatch]:
        assert len(rows.pairs) == len(prefixes) == 2
        if len(earlier) < before:
            earlier.append(sorted(pair.prefix for pair in rows.pairs))
            yield from run_rows(rows, model, outputs)
            return
        for pair in rows.pairs:
            assert pair.prefix == []
            assert all(any(body[: len(prefix)] == prefix for prefix in prefixes) for body in pair.bodies)
        raise StoppedError

    monkeypatch.setattr(CalibrationRows, "run", look)

    with pytest.raises(StoppedError):
        export_run(run.folder, tmp_path / "bundle", precision, False, silent, sizes=SIZES)
    assert earlier == [sorted(prefixes)] * before


@pytest.mark.usefixtures("exported_before")
def test_half_precision_meets_its_own_bounds(run: Run, tmp_path: Path) -> None:

    half = export_run(run.folder, tmp_path / "bundle", "fp16", False, silent, sizes=SIZES)

    assert half.spec.gate["bounds"] == asdict(BOUNDS["fp16"])


def test_a_decoder_that_float16_cannot_hold_is_not_written(
    run: Run, tiny_states: ir.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = tiny_states.clone()
    last = linears(large)[-1]  # the last layer only, so that the scores remain numbers
    last.set_weight(last.weight * np.float32(1e6))
    monkeypatch.setattr(whole, "export_states", lambda model: large)

    with pytest.raises(GateError, match="fp16: activations reach"):
        export_run(run.folder, tmp_path / "bundle", "fp16", False, silent, sizes=SIZES)

    assert list(tmp_path.iterdir()) == []


def application() -> typer.Typer:
    app = typer.Typer()
    app.callback()(lambda: None)
    register(app)
    return app


@pytest.mark.usefixtures("exported_before")
def test_the_command_exports_from_another_data_folder(run: Run, tables: Path, tmp_path: Path) -> None:
    facts = json.loads((run.folder / "run.json").read_text(encoding="utf-8"))
    moved = tmp_path / "run"
    moved.mkdir()
    for path in run.folder.iterdir():
        (moved / path.name).symlink_to(path)
    (moved / "run.json").unlink()
    facts |= {"data_folder": str(tmp_path / "gone"), "data": []}
    (moved / "run.json").write_text(json.dumps(facts), encoding="utf-8")
    arguments = ["export", str(moved), "-o", str(tmp_path / "bundle"), "--precision", "fp32", "--data", str(tables)]

    result = CliRunner().invoke(application(), arguments, catch_exceptions=False)

    assert result.exit_code == 0
    assert result.stdout == ""
    assert f"{tmp_path / 'bundle'}: tiny@" in result.stderr.splitlines()[-1]
    assert f"{tables / 'dev.tsv'}: not what the training read" in result.stderr
    assert (tmp_path / "bundle" / "bundle.json").is_file()


def test_the_command_offers_every_precision() -> None:
    offered = get_type_hints(export)["precision"]

    assert get_args(offered) == (*PRECISIONS, "auto")


def test_the_command_is_light_to_import() -> None:
    heavy = {"torch", "transformers", "peft", "onnx", "onnx_ir", "onnxruntime"}
    code = f"import sys, qe_edge_export.commands; print(sorted({heavy} & sys.modules.keys()))"

    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert result.stdout.strip() == "[]"
