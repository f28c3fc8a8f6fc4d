"""A bundle scores the same on every device, whatever stands together in a batch, and nothing of it runs elsewhere.

Those marked gpu need one; the others are a rehearsal on the CPU.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import onnx_ir as ir
import pytest
from tokenizers import Tokenizer

from qe_edge import Row, Scorer
from qe_edge.bundle import Bundle
from qe_edge.scoring.graph import PROVIDERS, Graph, KeyValueShape
from qe_edge_export import export as whole
from qe_edge_export.samples import SampleSizes
from qe_edge_train.run import Run

SIZES = SampleSizes(calibration=4, refit=20, gate=12)
BOUNDS = {"fp32": 0.01, "fp16": 0.05, "int8": 0.05, "int4": 0.05}
"""points between devices"""


@pytest.fixture(scope="module", params=BOUNDS)
def bundle(
    request: pytest.FixtureRequest,
    tiny_run: Callable[[str], Run],
    tiny_states: ir.Model,
    tmp_path_factory: pytest.TempPathFactory,
) -> Bundle:
    folder = tmp_path_factory.mktemp("out") / "bundle"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(whole, "export_states", lambda model: tiny_states.clone())
        return whole.export_run(tiny_run("none").folder, folder, request.param, False, lambda _: None, sizes=SIZES)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    """Rows of one word to more than the token limit, of both pairs, some with the same source."""
    chance = random.Random(1)
    words = ["maja", "good", "house", "puu", "on", "pikk", "bad", "fine", "river"]

    def text(most: int) -> str:
        return " ".join(chance.choices(words, k=chance.randint(1, most)))

    sources = [text(40) for _ in range(12)]
    return [
        Row.translation(chance.choice(sources), text(2 + number), chance.choice(["et", "ne"]), "en")
        for number in range(90)
    ]


def scores(bundle: Bundle, rows: Sequence[Row], device: str, token_budget: int | None = None) -> list[float]:
    with Scorer.of(bundle, device=device) as scorer:  # type: ignore[arg-type]
        scorer.engine.token_budget = token_budget or scorer.engine.token_budget
        found = [score.value for score in scorer.score(rows)]
    assert None not in found
    return [value for value in found if value is not None]


@pytest.mark.gpu
def test_devices_agree(bundle: Bundle, rows: list[Row]) -> None:
    here, there = scores(bundle, rows, "cpu"), scores(bundle, rows, "cuda")
    assert max(here) - min(here) > 0.5
    assert there == pytest.approx(here, abs=BOUNDS[bundle.spec.precision])


def test_a_batch_changes_no_score(bundle: Bundle, rows: list[Row], device: str) -> None:
    expected = scores(bundle, rows, device)
    bound = 0.01 if bundle.spec.precision == "fp32" else 0.05
    for budget in (1, 300, 1 << 20):
        assert scores(bundle, rows, device, budget) == pytest.approx(expected, abs=bound)
    backwards = scores(bundle, rows[::-1], device)
    assert backwards[::-1] == pytest.approx(expected, abs=bound)


@pytest.mark.gpu
def test_every_node_runs_on_the_gpu(bundle: Bundle, tmp_path: Path) -> None:
    spec = bundle.spec
    shape = KeyValueShape(spec.blocks_kept, spec.kv_heads, spec.head_dim)
    graph = Graph(bundle.model, shape, "cuda", profile=tmp_path / "profile")
    size = Tokenizer.from_file(str(bundle.tokenizer)).get_vocab_size()
    past = graph.prefix([1, 2, size - 1])
    graph.scores(past, [[1, 2, 3], [4]])
    events = json.loads(graph.end_profile().read_text(encoding="utf-8"))
    placed = {
        (event["args"]["op_name"], event["args"]["provider"])
        for event in events
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")
    }
    assert len(placed) > 5
    assert {provider for _, provider in placed} == {PROVIDERS["cuda"]}, placed
