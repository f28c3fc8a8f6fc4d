"""A row that the model or the machine cannot score is invalid with a reason, and neither remembered nor cached."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers

from qe_edge import Row, Score, Scorer, Status
from qe_edge.bundle import MODEL_FILE, SPEC_FILE, TOKENIZER_FILE, BundleSpec, file_sha256, write_spec
from qe_edge.cache import cache_info
from qe_edge.errors import BundleError
from qe_edge.scoring.engine import NO_MEMORY
from qe_edge.scoring.graph import Graph, KeyValueShape, Past

WORDS = 200
"""in the vocabulary of the bundle that needs much memory"""


def translation(words: int) -> Row:
    return Row.translation("a " * words, "b", "et", "en")


def rescored(bundle: Path, nodes: Sequence[onnx.NodeProto], constants: dict[str, Any], **changes: Any) -> Path:
    """The counting bundle with other nodes that make `score` of `counted`, its own score, and of `numbers` [B, S]."""
    model = onnx.load(bundle / MODEL_FILE)
    (counting,) = (node for node in model.graph.node if "score" in node.output)
    counting.output[0] = "counted"
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    onnx.save(model, bundle / MODEL_FILE)
    spec = BundleSpec(**json.loads((bundle / SPEC_FILE).read_bytes()))
    files = {name: file_sha256(bundle / name) for name in spec.files}
    write_spec(bundle, replace(spec, files=files, **changes))
    return bundle


@pytest.fixture
def overflowing_bundle(counting_bundle: Path) -> Path:
    """Its scores leave float32 where a prompt has 9 tokens or more, a source of 3 words or more."""
    times = helper.make_node("Mul", ["counted", "large"], ["score"])
    return rescored(counting_bundle, [times], {"large": np.float32(4e37)})


def test_a_score_that_overflows_is_invalid_with_a_reason_and_its_neighbours_are_scored(
    overflowing_bundle: Path, tmp_path: Path
) -> None:
    rows = [translation(1), translation(3), translation(2)]
    with Scorer.load(overflowing_bundle, device="cpu", threads=1, cache=tmp_path / "cache") as scorer:
        first, second, third = scorer.score(rows)
        assert list(scorer.score([rows[1]])) == [second]
    assert (first.status, third.status) == (Status.OK, Status.OK)
    assert first.value == pytest.approx(7 * 4e37)
    assert second.reason is not None
    assert (second.value, second.status) == (None, Status.INVALID)
    assert second.reason.startswith("the model's score is inf, no finite number; ")
    assert list(cache_info(tmp_path / "cache").scores.values()) == [2]


def test_a_row_without_memory_is_invalid_until_there_is_some(
    counting_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [translation(words) for words in (1, 4, 2)]
    whole = Graph.scores

    def short(self: Graph, past: Past, bodies: Sequence[Sequence[int]]) -> list[float]:
        if len(bodies) * max(map(len, bodies)) > 5:
            raise MemoryError
        return whole(self, past, bodies)

    with Scorer.load(counting_bundle, device="cpu") as scorer:
        with monkeypatch.context() as patched:
            patched.setattr(Graph, "scores", short)
            assert list(scorer.score(rows)) == [
                Score(7.0, Status.OK),
                Score(None, Status.INVALID, NO_MEMORY),
                Score(8.0, Status.OK),
            ]
        assert [score.value for score in scorer.score(rows)] == [7.0, 10.0, 8.0]


def test_without_memory_for_a_prefix_rows_are_run_whole_and_score_the_same(
    counting_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [translation(words) for words in (1, 4, 2)]
    past_tokens: list[int] = []
    whole = Graph.scores

    def full(self: Graph, tokens: Sequence[int]) -> Past:
        raise MemoryError("no room for a prefix")

    def noting(self: Graph, past: Past, bodies: Sequence[Sequence[int]]) -> list[float]:
        past_tokens.append(past["past_key_0"].shape()[2])
        return whole(self, past, bodies)

    monkeypatch.setattr(Graph, "scores", noting)
    with Scorer.load(counting_bundle, device="cpu") as scorer:
        plain = list(scorer.score(rows))
    with Scorer.load(counting_bundle, device="cpu") as scorer, monkeypatch.context() as patched:
        patched.setattr(Graph, "prefix", full)
        assert list(scorer.score(rows)) == plain
    assert past_tokens == [3, 0]


def test_a_graph_that_finds_no_memory_when_it_is_loaded_is_not_called_damaged(
    counting_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise RuntimeError("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Exception: std::bad_alloc")

    monkeypatch.setattr("onnxruntime.InferenceSession", full)
    with pytest.raises(MemoryError, match="bad_alloc"):
        Graph(counting_bundle / MODEL_FILE, KeyValueShape(1, 1, 1))
    monkeypatch.setattr("onnxruntime.InferenceSession", lambda *_, **__: 1 / 0)
    with pytest.raises(BundleError, match="cannot load the graph"):
        Graph(counting_bundle / MODEL_FILE, KeyValueShape(1, 1, 1))


def hungry(bundle: Path) -> Path:
    """The counting bundle with 16384 float32 more for every token of a batch, which make most of the score.

    A token's share is the largest sine of its number times random weights, at least 0, and a row's the largest of
    those: no padding and no other row plays a part.
    """
    tokenizer = Tokenizer(models.WordLevel({"?": 0} | {f"w{n}": n for n in range(1, WORDS)}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(bundle / TOKENIZER_FILE))
    nodes = [
        helper.make_node("Unsqueeze", ["numbers", "last_axis"], ["single"]),
        helper.make_node("MatMul", ["single", "weights"], ["products"]),
        helper.make_node("Sin", ["products"], ["sines"]),
        helper.make_node("ReduceMax", ["sines", "token_axes"], ["largest"], keepdims=0),
        helper.make_node("Add", ["counted", "largest"], ["score"]),
    ]
    weights = np.random.default_rng(0).standard_normal((1, 1 << 16), np.float32) / 1000
    constants = {"last_axis": np.array([2]), "token_axes": np.array([1, 2]), "weights": weights}
    return rescored(bundle, nodes, constants, token_limit=600)


LIMITED = """
import json, resource, sys
from qe_edge import Row, Scorer
bundle, words = sys.argv[1], int(sys.argv[2])
rows = [Row.translation(" ".join(f"w{(7 * n + k) % words}" for k in range(40 + n % 8)), f"w{n}", "et", "en")
        for n in range(40)]
rows[5] = Row.translation("w1 " * 580, "w2", "et", "en")
scorer = Scorer.load(bundle, device="cpu", threads=1)
scorer.engine.token_budget = 40 * 600
list(scorer.score([Row.translation("w3", "w4", "et", "en")]))  # starts the worker, runs the prefix
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (64 << 20), resource.RLIM_INFINITY))
limited = [score.value for score in scorer.score(rows)]
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
plenty = Scorer.load(bundle, device="cpu", threads=1)
print(json.dumps([limited, [score.value for score in plenty.score(rows)]]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space as Linux does")
def test_under_a_real_limit_large_batches_shrink_and_only_the_row_that_never_fits_has_no_score(
    counting_bundle: Path,
) -> None:
    command = [sys.executable, "-c", LIMITED, str(hungry(counting_bundle)), str(WORDS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert (done.returncode, done.stderr) == (0, "")
    limited, plenty = json.loads(done.stdout)
    assert limited[5] is None
    assert len({score for score in plenty if score % 1}) > 10
    plenty[5] = None
    assert limited == plenty
