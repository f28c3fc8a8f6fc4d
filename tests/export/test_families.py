"""Every supported family, exported once: the graph scores as the module does, in every precision, and once it is
simplified (passes/sizes.py) nothing is computed from shapes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch

from qe_edge.scoring.graph import Graph, KeyValueShape, pad
from qe_edge.verification.model import check_model
from qe_edge_export.graph import attach_head, export_states, key_value_shape
from qe_edge_export.passes import quantise_w4a8, quantise_w8a8, quantise_weight_only, simplify, to_half
from qe_edge_export.passes.linear import constant, linears
from qe_edge_export.samples import CalibrationRows, PairRows, opened
from qe_edge_export.writer import save_model
from qe_edge_train.adapters.experts import ExpertLinear
from qe_edge_train.decoder import FAMILIES, plain_decoder
from qe_edge_train.heads import Strategy
from qe_edge_train.tapped import TappedRegressor

TinyRegressor = Callable[..., TappedRegressor]
SCALE = 20
"""Points of the score scale in one standard unit, in `tiny_regressor`."""
OF_SHAPES = ("Shape", "Size", "Range", "ConstantOfShape")
"""Operators that give or take sizes: ONNX Runtime's CUDA provider has these numbers in the host's memory."""
ON_HOST = MappingProxyType(
    {
        **dict.fromkeys(("Reshape", "Expand", "Unsqueeze", "Squeeze", "Split", "TopK", "CumSum"), 1),
        **dict.fromkeys(("ReduceMax", "ReduceMean", "ReduceMin", "Slice"), 1),
    }
)
"""By operator, from which input on that provider reads numbers in the host's memory."""


def ids(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(3, 90, shape, generator=torch.Generator().manual_seed(seed))


@dataclass(frozen=True)
class Exported:
    """One case, in torch and in ONNX Runtime."""

    model: TappedRegressor
    states: ir.Model
    """the graph up to the tapped states, to be cloned"""
    onnx: ir.Model
    """the same with a head"""
    simplified: ir.Model
    """the states after `simplify`, with a head"""
    shape: KeyValueShape
    graph: Graph
    """runs `onnx`"""
    simplified_graph: Graph


CASES: list[tuple[str, tuple[int, ...], Strategy, tuple[int, ...] | None]] = [
    *((family, (2,), "single", None) for family in FAMILIES),
    ("llama", (2, 3), "dynamic", (1, 3)),
    ("qwen2", (3, 1), "multi", None),
    ("qwen3", (2, 3), "dynamic", None),
    ("gemma3_text", (2, 3), "multi", (3, 2)),
    ("mistral", (2,), "single", (2, 4)),
    ("phi3", (1, 2, 3), "dynamic", (3, 1, 2)),
    ("cohere", (2, 3), "multi", None),
]
"""Family, taps, strategy, experts of the kept blocks (none without): every family with several taps or with experts."""
LAST_POSITION = "the last block on the last position alone"


@pytest.fixture(scope="module", params=[*CASES, LAST_POSITION], ids=str)
def exported(request: pytest.FixtureRequest, tiny_regressor: TinyRegressor) -> Iterator[Exported]:
    if request.param == LAST_POSITION:
        model = tiny_regressor("llama", 1)
        model.full_blocks = 2
    else:
        family, taps, strategy, experts = request.param
        model = tiny_regressor(family, *taps, strategy=strategy, experts=experts)
    states = export_states(model)
    onnx, simplified = states.clone(), states.clone()
    simplify(simplified)
    for each in (onnx, simplified):
        attach_head(each, model.head)
    shape = key_value_shape(onnx)
    with opened(onnx, shape) as graph, opened(simplified, shape) as simplified_graph:
        yield Exported(model, states, onnx, simplified, shape, graph, simplified_graph)


def test_what_is_exported_passes_the_checks_of_bundles_from_strangers(exported: Exported, tmp_path: Path) -> None:
    save_model(exported.simplified.clone(), tmp_path)

    assert " nodes of " in check_model(tmp_path / "model.onnx", tmp_path / "model.onnx.data")


@pytest.mark.parametrize(
    ("batch", "length", "prefix"), [(1, 1, 4), (1, 9, 0), (2, 5, 0), (3, 9, 7), (4, 1, 2), (4, 6, 1)]
)
def test_the_graph_scores_as_the_module_does(exported: Exported, batch: int, length: int, prefix: int) -> None:
    before, tokens = ids(1, prefix, seed=1), ids(batch, length, seed=2)
    last = ids(batch, seed=3) % length

    with torch.no_grad():
        expected, _ = exported.model(tokens, last, exported.model.prefix(before) if prefix else None)
    past = exported.graph.prefix(before[0].tolist()) if prefix else exported.graph.nothing
    (scores,) = exported.graph.run(past, tokens.numpy(), last.numpy())

    assert scores.shape == (batch,)
    assert np.abs(scores - expected.numpy()).max() < 1e-4 * SCALE


@dataclass(frozen=True)
class Precision:
    """What a precision does to a graph, the operator that shows it, and what the scores may lose by it."""

    apply: Callable[[ir.Model, CalibrationRows], None]
    operator: str
    error: float
    """mean difference, in standard deviations of the scores"""


PRECISIONS = {
    "fp16": Precision(to_half, "MatMul", 0.005),
    "w8a8": Precision(partial(quantise_w8a8, embedding_bits=8), "MatMulIntegerToFloat", 0.1),
    "w4a8": Precision(partial(quantise_w4a8, frequent=(3, 4)), "MatMulIntegerToFloat", 0.6),
    "int8": Precision(partial(quantise_weight_only, bits=8, embedding_bits=8), "MatMulNBits", 0.1),
    "int4": Precision(partial(quantise_weight_only, bits=4, embedding_bits=8), "MatMulNBits", 0.6),
}


ROWS = {"w8a8": 96, "w4a8": 96}
"""So many have the tokens that fixed steps want."""


@pytest.mark.parametrize("name", PRECISIONS)
def test_every_family_keeps_its_scores_in_every_precision(exported: Exported, name: str, tmp_path: Path) -> None:
    bodies = [ids(5 + n % 4, seed=n).tolist() for n in range(ROWS.get(name, 24))]
    prefix = ids(6).tolist()
    rows = CalibrationRows((PairRows(prefix, bodies),), exported.shape)
    model, precision = exported.states.clone(), PRECISIONS[name]

    simplify(model)
    layers = len(linears(model))
    precision.apply(model, rows)
    operators = Counter(node.op_type for node in model.graph)
    left_in_float = len(linears(model))
    fixed = [node for node in model.graph if node.op_type == "QuantizeLinear" and "block_size" not in node.attributes]
    attach_head(model, exported.model.head)

    with opened(model, exported.shape) as graph:
        scores = rows.scores(graph)
        alone = rows.scores(graph, batch_size=1)
    expected = rows.scores(exported.graph)
    routed = [module for module in exported.model.modules() if isinstance(module, ExpertLinear)]
    # routers and experts alone stay in float32
    assert left_in_float == sum(2 + (module.router is not None) for module in routed)
    assert operators[precision.operator] >= layers - left_in_float > 0
    assert bool(fixed) == (name in ROWS)
    error = np.abs(scores - expected).mean() / expected.std()
    # a router that is near a tie sends a token to another expert for a difference of any size
    assert 0 < error < max(precision.error, 0.1 if routed else 0)
    assert np.abs(alone - scores).max() < 1e-3 * SCALE
    save_model(model, tmp_path)
    assert " nodes of " in check_model(tmp_path / "model.onnx", tmp_path / "model.onnx.data")


def test_a_prefix_and_its_bodies_score_as_whole_prompts(exported: Exported) -> None:
    prefix, bodies = ids(6).tolist(), [ids(n, seed=n).tolist() for n in (3, 8, 5)]

    (shared,) = exported.graph.run(exported.graph.prefix(prefix), *pad(bodies))
    (whole,) = exported.graph.run(exported.graph.nothing, *pad([prefix + body for body in bodies]))

    assert np.abs(shared - whole).max() < 1e-4 * SCALE
    assert np.ptp(whole) > 1e-2 * SCALE


def test_inputs_and_outputs_are_those_of_the_bundle_contract(exported: Exported) -> None:
    blocks, heads, size = exported.shape.blocks, exported.shape.kv_heads, exported.shape.head_dim
    kept = len(exported.model.decoder.layers)  # type: ignore[arg-type]

    def described(values: list[ir.Value]) -> list[tuple[str, str]]:
        return [(str(value.name), str(value.shape)) for value in values]

    assert blocks == kept
    assert described(list(exported.onnx.graph.inputs)) == [
        ("tokens", "[batch,length]"),
        ("last", "[batch]"),
        *((f"past_{kind}_{i}", f"[1,{heads},prefix,{size}]") for i in range(kept) for kind in ("key", "value")),
    ]
    assert described(list(exported.onnx.graph.outputs)) == [
        ("score", "[batch]"),
        *((f"present_{kind}_{i}", f"[batch,{heads},total,{size}]") for i in range(kept) for kind in ("key", "value")),
    ]


def test_attention_norms_and_rotary_positions_stay_single_nodes(exported: Exported) -> None:
    counts: dict[str, int] = {}
    for node in exported.onnx.graph:
        assert node.domain == ""
        counts[node.op_type] = counts.get(node.op_type, 0) + 1

    assert counts["Attention"] == exported.shape.blocks
    routers = [m for m in exported.model.modules() if isinstance(m, ExpertLinear) and m.router is not None]
    assert counts.get("Softmax", 0) == len(routers)


def test_attention_says_how_many_heads_it_has(exported: Exported) -> None:
    nodes = [node for node in exported.onnx.graph if node.op_type == "Attention"]
    config = plain_decoder(exported.model.decoder).config

    assert nodes
    for node in nodes:
        assert node.attributes.get_int("q_num_heads") == config.num_attention_heads
        assert node.attributes.get_int("kv_num_heads") == exported.shape.kv_heads


def host_work(model: ir.Model) -> list[str]:
    """Nodes that compute sizes, or that are told something the host would have to wait for."""
    found = []
    for node in model.graph:
        told = node.inputs[ON_HOST.get(node.op_type, len(node.inputs)) :]
        if node.op_type in OF_SHAPES or any(value is not None and constant(value) is None for value in told):
            found.append(f"{node.op_type} {node.name}")
    return found


def test_a_graph_as_exported_computes_sizes(exported: Exported) -> None:
    assert len(host_work(exported.onnx)) > 10


def test_a_simplified_graph_does_not(exported: Exported) -> None:
    assert not host_work(exported.simplified)


@pytest.mark.parametrize(
    ("batch", "length", "prefix"), [(1, 1, 4), (1, 9, 0), (2, 5, 0), (3, 9, 7), (4, 1, 2), (4, 6, 1)]
)
def test_every_output_stays_the_same_to_the_last_bit(exported: Exported, batch: int, length: int, prefix: int) -> None:
    before, after = exported.graph, exported.simplified_graph
    tokens = ids(batch, length, seed=1).numpy()
    last = np.arange(batch) % length
    past = before.prefix(range(3, 3 + prefix)) if prefix else before.nothing
    names = ("score", *exported.shape.outputs)
    for name, expected, found in zip(
        names, before.run(past, tokens, last, names), after.run(past, tokens, last, names), strict=True
    ):
        np.testing.assert_array_equal(found, expected, err_msg=name)


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_a_prefix_that_is_no_number_leaves_no_score(exported: Exported, broken: float) -> None:
    graph = exported.simplified_graph
    tokens, last = np.full((2, 3), 7), np.array([2, 1])
    usual = graph.prefix([5, 6])
    filled = {
        name: ort.OrtValue.ortvalue_from_numpy(np.full_like(past.numpy(), broken)) for name, past in usual.items()
    }
    (scores,) = graph.run(filled, tokens, last)
    assert not np.isfinite(scores).any()


@pytest.mark.parametrize("bits", [4, 16])
def test_precisions_for_a_gpu_add_none(exported: Exported, bits: int) -> None:
    model, shape = exported.simplified.clone(), exported.shape
    rows = CalibrationRows((PairRows([5, 6], [[7, 8, 9], [10, 11]]),), shape)
    if bits == 16:
        to_half(model, rows)
    else:
        quantise_weight_only(model, rows, bits=bits, embedding_bits=8)
    assert not host_work(model)


def test_in_half_precision_the_prefix_is_cast_before_it_is_copied_for_every_row(exported: Exported) -> None:
    model, shape = exported.simplified.clone(), exported.shape
    to_half(model, CalibrationRows((PairRows([5, 6], [[7, 8, 9], [10, 11]]),), shape))
    past = [value for value in model.graph.inputs if str(value.name).startswith("past_")]
    assert len(past) == 2 * shape.blocks
    for value in past:
        (cast,) = [node for node, _ in value.uses() if node.op_type != "Gather"]  # one is counted, too
        assert cast.op_type == "Cast"
        assert {node.op_type for node, _ in cast.outputs[0].uses()} == {"Add"}
