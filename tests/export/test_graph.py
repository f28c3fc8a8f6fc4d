"""Every supported family: the cut decoder is the base's own hidden state, and the graph scores as the module does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from transformers import (
    Gemma3TextConfig,
    Gemma3TextModel,
    LlamaConfig,
    LlamaModel,
    Olmo2Config,
    Olmo2Model,
    PreTrainedModel,
)

from qe_edge.errors import UsageError
from qe_edge.scoring.graph import Graph, KeyValueShape, pad
from qe_edge.verification.model import check_model
from qe_edge_export.graph import attach_head, export_states, key_value_shape
from qe_edge_export.passes import quantise_w8a8, quantise_weight_only, simplify, to_half
from qe_edge_export.passes.linear import linears
from qe_edge_export.samples import CalibrationRows, PairRows, opened
from qe_edge_export.writer import save_model
from qe_edge_train.adapters.experts import ExpertLinear
from qe_edge_train.attention import NAME
from qe_edge_train.decoder import FAMILIES, attention_limit, blocks, cut_decoder, plain_decoder
from qe_edge_train.heads import HeadOptions, RegressionHead, Strategy
from qe_edge_train.tapped import TappedRegressor, hidden_states

WholeDecoder = Callable[[str, str], PreTrainedModel]
TinyRegressor = Callable[..., TappedRegressor]
SCALE = 20
"""Points of the score scale in one standard unit, in `tiny_regressor`."""


def ids(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(3, 90, shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("tap", [1, 2, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_cut_decoder_gives_the_hidden_state_of_the_whole_one(
    whole_decoder: WholeDecoder, tiny_regressor: TinyRegressor, family: str, tap: int
) -> None:
    whole = whole_decoder(family, "sdpa")
    cut = tiny_regressor(family, tap)
    tokens = ids(2, 15)

    with torch.no_grad():
        expected = whole(tokens, output_hidden_states=True, use_cache=False).hidden_states[-tap]
        (at_once,) = hidden_states(cut.decoder, tokens, cut.layers)
        (after_prefix,), _ = cut.last_states(tokens[:, 6:], torch.tensor([8, 2]), cut.prefix(tokens[:, :6]))

    tolerance = 1e-5 * float(expected.abs().max())
    assert attention_limit(cut.decoder.config) >= 15  # type: ignore[arg-type]
    torch.testing.assert_close(at_once, expected, atol=tolerance, rtol=0)
    torch.testing.assert_close(after_prefix, expected[[0, 1], [14, 8]], atol=tolerance, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_hidden_state_is_that_of_transformers(whole_decoder: WholeDecoder, family: str) -> None:
    whole, decoder = whole_decoder(family, "sdpa"), whole_decoder(family, "qe_edge")
    tokens = ids(3, 11)
    lengths = [11, 4, 7]
    padded = torch.stack([torch.cat([row[:n], row.new_zeros(11 - n)]) for row, n in zip(tokens, lengths, strict=True)])
    before, norm = list(blocks(decoder)), decoder.norm
    runs = [0, 0, 0]
    for number, block in enumerate(before):
        block.register_forward_hook(lambda *_, number=number: runs.__setitem__(number, runs[number] + 1))

    with torch.no_grad():
        expected = whole(tokens, output_hidden_states=True, use_cache=False).hidden_states
        together = hidden_states(decoder, padded, range(4))
        assert runs == [1, 1, 1]
        alone = [hidden_states(decoder, padded, [layer])[0] for layer in range(4)]

    assert runs == [4, 3, 2]  # blocks above a layer are not run for it
    assert (list(blocks(decoder)), decoder.norm) == (before, norm)
    for layer in range(4):
        tolerance = 1e-5 * float(expected[layer].abs().max())
        for row, length in enumerate(lengths):
            for found in (together[layer], alone[layer]):
                torch.testing.assert_close(found[row, :length], expected[layer][row, :length], atol=tolerance, rtol=0)


@dataclass(frozen=True)
class Exported:
    """One case, in torch and in ONNX Runtime."""

    model: TappedRegressor
    states: ir.Model
    """the graph up to the tapped states, to be cloned"""
    onnx: ir.Model
    shape: KeyValueShape
    graph: Graph


CASES: list[tuple[str, tuple[int, ...], Strategy, tuple[int, ...] | None]] = [
    *((family, (1,), "single", None) for family in FAMILIES),
    ("llama", (2, 3), "dynamic", (1, 3)),
    ("qwen2", (3, 1), "multi", None),
    ("qwen3", (2, 3), "dynamic", None),
    ("gemma3_text", (2, 3), "multi", (3, 2)),
    ("mistral", (2,), "single", (2, 4)),
    ("phi3", (1, 2, 3), "dynamic", (3, 1, 2)),
    ("cohere", (2, 3), "multi", None),
]
"""Family, taps, strategy, experts of the kept blocks (none without): every family with several taps or with experts."""


@pytest.fixture(scope="module", params=CASES, ids=str)
def exported(request: pytest.FixtureRequest, tiny_regressor: TinyRegressor) -> Iterator[Exported]:
    family, taps, strategy, experts = request.param
    model = tiny_regressor(family, *taps, strategy=strategy, experts=experts)
    states = export_states(model)
    onnx = states.clone()
    attach_head(onnx, model.head)
    shape = key_value_shape(onnx)
    with opened(onnx, shape) as graph:
        yield Exported(model, states, onnx, shape, graph)


def test_what_is_exported_passes_the_checks_of_bundles_from_strangers(exported: Exported, tmp_path: Path) -> None:
    model = exported.states.clone()
    simplify(model)
    attach_head(model, exported.model.head)
    save_model(model, tmp_path)

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
    "int8": Precision(partial(quantise_weight_only, bits=8, embedding_bits=8), "MatMulNBits", 0.1),
    "int4": Precision(partial(quantise_weight_only, bits=4, embedding_bits=8), "MatMulNBits", 0.6),
}


ROWS = {"w8a8": 96}
"""So many have the tokens that fixed steps want."""


@pytest.mark.parametrize("name", PRECISIONS)
def test_every_family_keeps_its_scores_in_every_precision(exported: Exported, name: str) -> None:
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
    assert bool(fixed) == (name == "w8a8")
    error = np.abs(scores - expected).mean() / expected.std()
    # a router that is near a tie sends a token to another expert for a difference of any size
    assert 0 < error < max(precision.error, 0.1 if routed else 0)
    assert np.abs(alone - scores).max() < 1e-3 * SCALE


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


def test_a_family_that_is_not_supported_is_refused_by_name() -> None:
    config = Olmo2Config(
        vocab_size=90, hidden_size=32, intermediate_size=40, num_hidden_layers=1, num_attention_heads=4, pad_token_id=0
    )
    model = TappedRegressor(Olmo2Model(config), RegressionHead(HeadOptions(32, layer_norm=False, bias=False)))

    with pytest.raises(UsageError, match=r"decoder family 'olmo2' cannot be exported; supported are llama, qwen2"):
        export_states(model)


def test_a_model_that_attends_both_ways_is_refused() -> None:
    config = Gemma3TextConfig(
        vocab_size=90,
        hidden_size=32,
        intermediate_size=40,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        use_bidirectional_attention=True,
    )

    with pytest.raises(UsageError, match="this gemma3_text model attends to later tokens too"):
        cut_decoder(Gemma3TextModel(config), 1)


def test_positions_that_change_with_the_length_are_refused() -> None:
    config = LlamaConfig(
        vocab_size=90,
        hidden_size=32,
        intermediate_size=40,
        num_hidden_layers=1,
        num_attention_heads=4,
        rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0},
    )
    model = TappedRegressor(LlamaModel(config), RegressionHead(HeadOptions(32, layer_norm=False, bias=False)))

    with pytest.raises(UsageError, match="scales its positions by 'dynamic'"):
        export_states(model)


def test_as_many_key_value_heads_as_query_heads_score_as_the_module_does() -> None:
    """As in Llama 2 and Phi-3-mini."""
    config = LlamaConfig(
        vocab_size=90,
        hidden_size=32,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        initializer_range=0.2,
    )
    config._attn_implementation = NAME
    torch.manual_seed(3)
    head = RegressionHead(HeadOptions(32, layer_norm=False, bias=True))
    model = TappedRegressor(LlamaModel(config), head, 1).requires_grad_(False).eval()
    states = export_states(model)
    shape = key_value_shape(states)
    assert (shape.kv_heads, shape.head_dim) == (4, 8)
    prefix, bodies = ids(1, 4), ids(3, 7)
    last = torch.tensor([6, 2, 4])

    expected, _ = model.last_states(bodies, last, model.prefix(prefix))
    with opened(states, shape, ["state_0"]) as graph:
        (found,) = graph.run(graph.prefix(prefix[0].tolist()), bodies.numpy(), last.numpy(), ["state_0"])

    np.testing.assert_allclose(found, expected[0].numpy(), atol=1e-5 * float(expected[0].abs().max()))


@pytest.mark.parametrize("bias", [True, False])
def test_a_head_without_a_norm_is_one_affine_map(bias: bool) -> None:
    head = RegressionHead(HeadOptions(2, layer_norm=False, bias=bias))
    with torch.no_grad():
        head.set_readout(torch.tensor([[1.0, -2.0]]), torch.tensor(0.5) if bias else None)
    head.shift.fill_(60.0)
    head.scale.fill_(10.0)
    state = ir.Value(name="state_0", shape=ir.Shape(["batch", 2]), type=ir.TensorType(ir.DataType.FLOAT))
    source = ir.Value(name="source", shape=ir.Shape(["batch", 2]), type=ir.TensorType(ir.DataType.FLOAT))
    node = ir.node("Identity", [source], outputs=[state])
    model = ir.Model(ir.Graph([source], [state], nodes=[node], opset_imports={"": 23}, name="head"), ir_version=10)

    attach_head(model, head)

    import onnxruntime as ort

    session = ort.InferenceSession(ir.to_proto(model).SerializeToString())
    # 10 * (3 - 2 * 1 + b) + 60, 10 * (0 - 2 * 4 + b) + 60
    expected = [75.0, -15.0] if bias else [70.0, -20.0]
    assert session.run(["score"], {"source": np.array([[3, 1], [0, 4]], np.float32)})[0].tolist() == expected
