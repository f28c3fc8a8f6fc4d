"""Export of every head strategy and every kind of adapter, and what cannot be exported or merged."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from tokenizers import Tokenizer

from qe_edge.bundle import Bundle
from qe_edge.cli import main
from qe_edge.errors import InputError, UsageError
from qe_edge.metrics import FloatArray
from qe_edge.prompt import Prompt
from qe_edge.scoring.graph import Graph, KeyValueShape
from qe_edge.tokens import PromptEncoder
from qe_edge_export import export as whole
from qe_edge_export.export import export_run
from qe_edge_export.gate import Bounds
from qe_edge_export.graph import export_states
from qe_edge_export.merge import check_mergeable, merged_regressor
from qe_edge_export.samples import CalibrationRows, SampleSizes
from qe_edge_train.adapters.experts import ExpertLinear
from qe_edge_train.batches import EncodedSet, encode
from qe_edge_train.build import adapted_decoder
from qe_edge_train.data import load_examples
from qe_edge_train.evaluate import predict
from qe_edge_train.recipe import Adapter, Head
from qe_edge_train.run import Run
from qe_edge_train.tapped import TappedRegressor

TinyRun = Callable[..., Run]
SIZES = SampleSizes(calibration=4, refit=20, gate=12)
PROMPT = "{sl} {tl}: {src} = {mt}"
CPU = torch.device("cpu")
SCALE = 20
"""Points of the score scale in one standard unit, in `tiny_run`."""
KINDS = {
    "lora": Adapter(rank=4, alpha=8),
    "rank_per_block": Adapter(kind="rank_per_block", rank=4, alpha=8),
    "experts": Adapter(kind="experts", rank=4, alpha=8),
    "none": Adapter(kind="none"),
}


def silent(line: str) -> None:
    assert line


def make(tiny_run: TinyRun, strategy: str, taps: tuple[int, ...], kind: str, quantisation: str = "none") -> Run:
    head = Head(strategy=strategy, taps=taps, layer_norm=True, bias=True, prompt=PROMPT, token_limit=120)  # type: ignore[arg-type]
    return tiny_run(quantisation, head, KINDS[kind])


def dev_rows(run: Run, bundle: Bundle, tables: Path) -> EncodedSet:
    """Dev rows encoded as the bundle says."""
    spec = bundle.spec
    tokenizer = Tokenizer.from_file(str(bundle.tokenizer))
    encoder = PromptEncoder(tokenizer, Prompt(spec.prompt), spec.bos, spec.token_limit)
    examples, _ = load_examples(run.recipe.dev, "mean", tables, 1, Prompt(spec.prompt))
    return encode(sorted(examples, key=lambda example: example.pair), encoder)


def trained_scores(run: Run, data: EncodedSet) -> FloatArray:
    """Scores of the model as it was trained: base and adapter apart."""
    model = TappedRegressor(adapted_decoder(run, CPU), run.head()).eval()
    return predict(model, data, range(len(data.examples)), CPU)


def assert_one_graph_scores(bundle: Bundle, data: EncodedSet, expected: FloatArray, tolerance: float) -> None:
    """The bundle's graph gives the scores, whatever the batch; prefixes are shared and rows of both pairs scored."""
    shape = KeyValueShape(bundle.spec.blocks_kept, bundle.spec.kv_heads, bundle.spec.head_dim)
    graph, rows = Graph(bundle.model, shape), CalibrationRows.of(data, shape)
    scores = rows.scores(graph)
    assert np.abs(scores - expected).max() <= tolerance
    for batch_size in (1, 5):
        assert np.abs(rows.scores(graph, batch_size, by_length=False) - scores).max() <= 1e-4 * SCALE


@dataclass(frozen=True)
class Case:
    run: Run
    kind: str
    kept: int
    """blocks that stay"""
    states: ir.Model
    """the graph up to the tapped states, to be cloned"""


CASES = [
    ("dynamic", (2, 3), "rank_per_block", 2),
    ("multi", (3, 1), "none", 3),
    ("single", (2,), "experts", 2),
]
"""Strategy, taps, kind of adapter, kept blocks. LoRA is what `tiny_run` has by itself; other mixtures of strategies and
experts, and what can be merged, have tests without a run (test_families.py, test_merge.py)."""


@pytest.fixture(scope="module", params=CASES, ids=str)
def case(request: pytest.FixtureRequest, tiny_run: TinyRun) -> Case:
    strategy, taps, kind, kept = request.param
    run = make(tiny_run, strategy, taps, kind)
    return Case(run, kind, kept, export_states(merged_regressor(run)))


@pytest.fixture
def exported_before(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports of the case's run begin with the graph that is there already."""
    monkeypatch.setattr(whole, "export_states", lambda model: case.states.clone())


@pytest.mark.usefixtures("exported_before")
def test_a_bundle_scores_as_the_model_that_was_trained(case: Case, tables: Path, tmp_path: Path) -> None:
    run, head = case.run, case.run.recipe.head

    bundle = export_run(run.folder, tmp_path / "bundle", "fp32", False, silent, sizes=SIZES)

    assert (bundle.spec.strategy, bundle.spec.taps, bundle.spec.blocks_kept) == (
        head.strategy,
        list(head.taps),
        case.kept,
    )
    data = dev_rows(run, bundle, tables)
    expected = trained_scores(run, data)
    assert np.ptp(expected) > 1
    assert_one_graph_scores(bundle, data, expected, 1e-4 * SCALE)
    operators = Counter(node.op_type for node in onnx.load(bundle.model, load_external_data=False).graph.node)
    assert (operators["TopK"] > 0) == (case.kind == "experts")


def test_experts_over_a_four_bit_base_are_exported_with_the_values_they_saw(
    tiny_run: TinyRun, tables: Path, tmp_path: Path
) -> None:
    run = make(tiny_run, "multi", (2, 3), "experts", "nf4")

    bundle = export_run(run.folder, tmp_path / "bundle", "fp32", False, silent, sizes=SIZES)

    data = dev_rows(run, bundle, tables)
    assert_one_graph_scores(bundle, data, trained_scores(run, data), 1e-3 * SCALE)


@pytest.mark.usefixtures("exported_before")
def test_eight_bits_keep_the_scores_of_every_kind(
    case: Case, tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 12 rows a pair of a model that learnt nothing say little of correlations: the real bounds are for hundreds
    monkeypatch.setattr(whole, "BOUNDS", {"w8a8": Bounds(8, 3, movement=0.01, spearman_with_trained=0.8, loss=0.3)})
    run, head = case.run, case.run.recipe.head

    bundle = export_run(run.folder, tmp_path / "bundle", "w8a8", False, silent, sizes=SIZES)

    data = dev_rows(run, bundle, tables)
    expected = trained_scores(run, data)
    assert_one_graph_scores(bundle, data, expected, 8)
    operators = Counter(node.op_type for node in onnx.load(bundle.model, load_external_data=False).graph.node)
    routed = [module for module in merged_regressor(run).modules() if isinstance(module, ExpertLinear)]
    kept_in_float = sum(2 + (module.router is not None) for module in routed)
    in_the_head = {"single": 1, "dynamic": 2, "multi": len(head.taps)}[head.strategy]
    assert operators["MatMul"] == kept_in_float + in_the_head
    assert operators["MatMulIntegerToFloat"] == 7 * bundle.spec.blocks_kept


def test_merging_experts_is_refused_in_one_line(
    tiny_run: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make(tiny_run, "single", (2,), "experts")

    assert main(["export", str(run.folder), "-o", str(tmp_path / "bundle"), "--merge"]) == 2

    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    assert line.startswith(f"qe-edge: error: {run.folder}: its adapter cannot be merged: it routes every token to exp")
    assert "without --merge" in line
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("kind", ["lora", "rank_per_block", "none"])
def test_what_can_be_merged_is_not_refused(tiny_run: TinyRun, kind: str) -> None:
    run = make(tiny_run, "single", (2,), kind)

    check_mergeable(run)

    model = merged_regressor(run)
    assert not any("lora" in name for name, _ in model.named_modules())


def test_experts_stay_beside_the_weights_they_were_trained_with(tiny_run: TinyRun) -> None:
    run = make(tiny_run, "single", (2,), "experts")

    with pytest.raises(UsageError, match="without --merge"):
        check_mergeable(run)
    routed = [module for module in merged_regressor(run).modules() if isinstance(module, ExpertLinear)]

    assert [module.experts for module in routed] == [1] * 7 + [3] * 7


def test_a_run_without_a_head_is_refused(tiny_run: TinyRun, tmp_path: Path) -> None:
    run = make(tiny_run, "single", (2,), "lora")
    facts = json.loads((run.folder / "run.json").read_text(encoding="utf-8"))
    (run.folder / "run.json").write_text(json.dumps({**facts, "head": None}), encoding="utf-8")
    (run.folder / "head.safetensors").unlink()

    with pytest.raises(InputError, match=r"this run only aligns languages and has no head; train one") as caught:
        export_run(run.folder, tmp_path / "bundle", "fp32", False, silent, sizes=SIZES)

    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
