"""`--precision auto`: one merge and one graph for all, a line for each candidate, and the best one is written."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir
import pytest
import typer
from typer.testing import CliRunner

from qe_edge.bundle import PRECISIONS, open_bundle
from qe_edge.errors import GateError, InputError, QeEdgeError, UsageError
from qe_edge.rows import Row
from qe_edge.scoring.scorer import Device
from qe_edge_export import auto
from qe_edge_export import export as whole
from qe_edge_export.auto import Candidate, Choice, candidates, export_best, pick, reason, rows_per_second, table
from qe_edge_export.commands import register
from qe_edge_export.gate import Bounds
from qe_edge_export.samples import SampleSizes
from qe_edge_train.run import Run
from qe_edge_train.tapped import TappedRegressor

SIZES = SampleSizes(calibration=4, refit=20, gate=12)
SPEEDS = {"fp32": 50.0, "fp16": 20.0, "w8a8": 100.0, "int8": 60.0, "w4a8": 90.0, "int4": 55.0}
LOOSE = Bounds(None, None, movement=0.05, spearman_with_trained=0.5, loss=0.5)


@pytest.fixture(scope="module")
def run(tiny_run: Callable[[str], Run]) -> Run:
    return tiny_run("none")


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Speeds that are known beforehand; holds the bundles that were timed."""
    names: list[str] = []

    def speeds(bundles: Mapping[str, Path], rows: Sequence[Row], device: Device) -> dict[str, float]:
        assert len(rows) == 24
        assert {row.pair for row in rows} == {"et-en", "ne-en"}
        names.extend(bundles)
        return {name: SPEEDS[open_bundle(folder).spec.precision] for name, folder in bundles.items()}

    monkeypatch.setattr(auto, "rows_per_second", speeds)
    return names


def test_the_best_of_all_is_written_and_the_others_are_gone(
    run: Run, tiny_states: ir.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, timed: list[str]
) -> None:
    # the correlations of 12 rows a pair say little: these bounds let all pass but the one that cannot
    monkeypatch.setattr(whole, "BOUNDS", dict.fromkeys(PRECISIONS, LOOSE) | {"w8a8": replace(LOOSE, movement=-1)})
    exported: list[TappedRegressor] = []

    def counted(model: TappedRegressor) -> ir.Model:
        exported.append(model)
        return tiny_states.clone()

    monkeypatch.setattr(whole, "export_states", counted)
    lines: list[str] = []

    bundle = export_best(run.folder, tmp_path / "best", Choice(loss=1, device="cpu"), False, lines.append, sizes=SIZES)

    assert len(exported) == 1
    assert bundle.spec.precision == "w4a8"
    assert timed == [name for name in PRECISIONS if name != "w8a8"]
    assert [path.name for path in tmp_path.iterdir()] == ["best"]
    assert bundle == open_bundle(tmp_path / "best")
    found = bundle.spec.gate["auto"]["candidates"]
    assert list(found) == list(PRECISIONS)
    assert found["w4a8"]["verdict"] == "written"
    assert found["fp32"]["verdict"] == "good enough, but slower"
    assert found["w8a8"] == {"verdict": found["w8a8"]["verdict"]}
    assert found["w8a8"]["verdict"].startswith("refused: w8a8: largest movement of a score between batches is ")
    assert found["w4a8"]["mean_difference"] == bundle.spec.gate["mean_difference"]
    assert found["int4"]["mib"] < found["int8"]["mib"] < found["fp32"]["mib"]
    shown = lines[-2].splitlines()
    assert shown[0].split("  ")[0] == "precision"
    assert [line.split()[0] for line in shown[1:]] == list(PRECISIONS)
    assert lines[-1].startswith("w4a8 is written: the fastest, 90.0 rows/s, of 5 out of 6 candidates that pass")


@pytest.mark.usefixtures("exported_before")
def test_without_a_good_candidate_nothing_is_written(run: Run, tmp_path: Path, timed: list[str]) -> None:
    choice = Choice(["fp32"], loss=-1, device="cpu")
    with pytest.raises(GateError, match="none of fp32 passes its gate and loses at most -1; nothing was written"):
        export_best(run.folder, tmp_path / "best", choice, False, lambda line: None, sizes=SIZES)
    assert list(tmp_path.iterdir()) == []
    assert timed == []


@pytest.mark.usefixtures("exported_before")
@pytest.mark.parametrize("error", [UsageError("hidden size 40: no; use 32"), InputError("9 training rows: few; more")])
def test_a_precision_that_does_not_fit_is_a_line_of_the_table(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, timed: list[str], error: QeEdgeError
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(whole, "quantise_w8a8", refuse)
    choice = Choice(["fp32", "w8a8"], device="cpu")

    bundle = export_best(run.folder, tmp_path / "best", choice, False, lambda line: None, sizes=SIZES)

    assert bundle.spec.precision == "fp32"
    verdict = bundle.spec.gate["auto"]["candidates"]["w8a8"]["verdict"]
    assert verdict == "refused: " + str(error).partition(";")[0]
    assert timed == ["fp32"]


GOOD = [
    Candidate("fp32", "", 500.0, 0.0, 0.7, 0.0, 50.0),
    Candidate("w8a8", "", 90.0, 0.5, 0.699, 0.001, 100.0, 700),
    Candidate("int4", "", 60.0, 1.0, 0.698, 0.002, 55.0),
    Candidate("w4a8", "loses 0.0100 +- 0.0040, more than 0.003", 59.0, 1.5, 0.69, 0.01, loss_rows=2800),
]


def test_speed_or_size_decides_among_those_without_a_verdict() -> None:
    assert pick(GOOD, "speed").precision == "w8a8"
    assert pick(GOOD, "size").precision == "int4"


def test_the_sentence_says_why() -> None:
    assert reason(GOOD, GOOD[2], Choice(prefer="size")) == (
        "int4 is written: the smallest, 60.0 MiB, of 3 out of 4 candidates that pass their gate and lose at most 0.003 "
        "of the Spearman correlation with human scores."
    )


def test_the_table_shows_what_was_not_measured() -> None:
    lines = table([GOOD[1], GOOD[3], Candidate("fp16", "refused: too large")]).splitlines()
    assert lines == [
        "precision  MiB   mean difference  Spearman  loss    of rows  rows/s  verdict",
        "w8a8       90.0  0.50             0.6990    0.0010  700      100.0",
        "w4a8       59.0  1.50             0.6900    0.0100  2800     -       loses 0.0100 +- 0.0040, more than 0.003",
        "fp16       -     -                -         -       -        -       refused: too large",
    ]


def test_candidates_are_all_or_those_named() -> None:
    assert candidates(Choice(device="cpu")) == list(PRECISIONS)
    assert candidates(Choice(["int4", "fp32", "int4"], device="cpu")) == ["int4", "fp32"]
    with pytest.raises(UsageError, match="unknown precision 'int3'"):
        candidates(Choice(["int3"]))


def test_what_a_gpu_cannot_run_is_no_candidate_there(monkeypatch: pytest.MonkeyPatch) -> None:
    offered = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: offered)
    assert candidates(Choice(device="cuda")) == ["fp32", "fp16", "int8", "int4"]


@pytest.mark.usefixtures("exported_before")
def test_bundles_take_turns_and_the_median_counts(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = whole.export_run(run.folder, tmp_path / "a", "fp32", False, lambda line: None, sizes=SIZES)
    rows = [Row.translation("maja", "house" * n, "et", "en") for n in range(1, 6)]
    # of every turn the first time is that of the warm-up
    seconds = iter(float(number) for turn in (1, 20, 3, 40, 2, 30, 5, 50, 9, 10) for number in (999, turn))
    monkeypatch.setattr(auto, "seconds_on_graph", lambda scorer, jobs: next(seconds))

    assert rows_per_second({"a": bundle.folder, "b": bundle.folder}, rows, "cpu") == {"a": 5 / 3, "b": 5 / 30}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-p", "auto", "--keep-layers", "3"], "--keep-layers 3: not with --precision auto"),
        (["-p", "auto", "--auto-loss", "nan"], "--auto-loss nan: give a finite number from 0"),
        (["-p", "auto", "--auto-loss", "inf"], "--auto-loss inf: give a finite number from 0"),
        (["-p", "auto", "--auto-loss", "-0.1"], "--auto-loss -0.1: give a finite number from 0"),
        (
            ["-p", "w8a8", "--prefer", "size"],
            "--precision w8a8: --candidates, --auto-loss, --prefer and --device",
        ),
        (["-p", "fp32", "--keep-layers", "auto"], "--keep-layers auto: fp32 has no layers in integers"),
        (["-p", "w8a8", "--keep-layers", "many"], "--keep-layers many: give a whole number"),
    ],
)
def test_options_that_do_not_go_together_are_one_line(
    run: Run, tmp_path: Path, options: list[str], message: str
) -> None:
    app = typer.Typer()
    app.callback()(lambda: None)
    register(app)
    result = CliRunner().invoke(app, ["export", str(run.folder), "-o", str(tmp_path / "bundle"), *options])
    assert isinstance(result.exception, UsageError)
    assert str(result.exception).startswith(message)


@pytest.mark.usefixtures("exported_before")
def test_layers_that_stay_in_float_are_named_in_the_record(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole, "BOUNDS", {"w8a8": LOOSE})
    bundle = whole.export_run(run.folder, tmp_path / "bundle", "w8a8", False, lambda line: None, sizes=SIZES, keep=3)
    kept = json.loads((bundle.folder / "bundle.json").read_text(encoding="utf-8"))["gate"]["kept_layers"]
    assert len(kept) == 3
    assert list(kept.values()) == sorted(kept.values(), reverse=True)
    assert all(name.startswith("decoder.layers.") for name in kept)
    products = [node.op_type for node in ir.load(bundle.model).graph if "MatMul" in node.op_type]
    assert products.count("MatMulIntegerToFloat") == 14 - 3
