"""Cut decoders give the base's own hidden states, and what cannot be exported is refused (graphs: test_families.py)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
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
from qe_edge_export.graph import attach_head, export_states, key_value_shape
from qe_edge_export.samples import opened
from qe_edge_train.attention import NAME
from qe_edge_train.decoder import FAMILIES, attention_limit, blocks, cut_decoder
from qe_edge_train.heads import HeadOptions, RegressionHead
from qe_edge_train.tapped import TappedRegressor, hidden_states

WholeDecoder = Callable[[str, str], PreTrainedModel]
TinyRegressor = Callable[..., TappedRegressor]


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

    session = ort.InferenceSession(ir.to_proto(model).SerializeToString())
    # 10 * (3 - 2 * 1 + b) + 60, 10 * (0 - 2 * 4 + b) + 60
    expected = [75.0, -15.0] if bias else [70.0, -20.0]
    assert session.run(["score"], {"source": np.array([[3, 1], [0, 4]], np.float32)})[0].tolist() == expected
