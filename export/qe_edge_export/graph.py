"""From the tapped module to an ONNX graph: one path for every supported decoder family.

Legend: B rows, S body tokens, P prefix tokens, L blocks, G key/value heads, D head size, H hidden size.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from qe_edge.errors import UsageError
from qe_edge.scoring.graph import KeyValueShape
from qe_edge_export.passes.linear import FLOAT, operand
from qe_edge_export.passes.sizes import BATCH, LENGTH, PREFIX, TOTAL
from qe_edge_train.adapters.experts import PARTS
from qe_edge_train.decoder import FAMILIES, moving_positions, plain_decoder
from qe_edge_train.heads import Mix, RegressionHead
from qe_edge_train.tapped import KeyValues, TappedRegressor

OPSET = 23
"""The first with Attention, RMSNormalization and RotaryEmbedding."""
STATE = "state_"
"""Begins the names of the outputs that hold tapped states, one a tap, in the order of the head's taps."""


class _LastStates(nn.Module):
    """What is exported: the tapped regressor without its head."""

    def __init__(self, model: TappedRegressor) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, last: Tensor, past: KeyValues) -> tuple[list[Tensor], KeyValues]:
        return self.model.last_states(tokens, last, past)


def export_states(model: TappedRegressor) -> ir.Model:
    """The graph of a merged float32 model on the CPU, up to the tapped states.

    Inputs `tokens` int64 [B, S], `last` int64 [B], `past_key_i`, `past_value_i` float32 [1, G, P, D]; outputs `state_j`
    float32 [B, H] for every tap, `present_key_i`, `present_value_i` float32 [B, G, P + S, D]. B, S and P are free,
    P = 0 included.

    Raises UsageError for a decoder family that is not supported and for rotary positions that change with the length.
    """
    shape = _check(model)
    # any sizes will do that are neither 0 nor 1, which torch takes for constants, and all different
    keys, values = ([torch.zeros(1, shape.kv_heads, 5, shape.head_dim) for _ in range(shape.blocks)] for _ in range(2))
    past = list(zip(keys, values, strict=True))  # each a tensor of its own: one given twice would become one input
    example = (torch.zeros(3, 7, dtype=torch.int64), torch.zeros(3, dtype=torch.int64), past)
    free = torch.export.Dim.DYNAMIC
    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            _LastStates(model).eval(),
            example,
            dynamo=True,
            opset_version=OPSET,
            verbose=False,
            input_names=["tokens", "last", *shape.inputs],
            output_names=[*(f"{STATE}{j}" for j in range(len(model.layers))), *shape.outputs],
            dynamic_shapes=({0: free, 1: free}, {0: free}, [({2: free}, {2: free}) for _ in past]),
        )
    assert program is not None, "the dynamo exporter returns a program when it is given no file"
    _name_sizes(program)
    _mark_experts(program.model)
    _name_heads(program.model, plain_decoder(model.decoder).config.num_attention_heads, shape.kv_heads)
    return program.model


def key_value_shape(model: ir.Model) -> KeyValueShape:
    """Blocks, key/value heads and head size of an exported graph, read from its inputs."""
    keys = [value for value in model.graph.inputs if str(value.name).startswith("past_key_")]
    assert keys[0].shape is not None
    _, heads, _, size = keys[0].shape
    assert isinstance(heads, int)
    assert isinstance(size, int)
    return KeyValueShape(len(keys), heads, size)


def state_outputs(model: ir.Model) -> list[ir.Value]:
    """The outputs of a graph that hold tapped states, in the order of the taps."""
    return [value for value in model.graph.outputs if str(value.name).startswith(STATE)]


def attach_head(model: ir.Model, head: RegressionHead) -> None:
    """Replace the outputs `state_j` [B, H] by `score` float32 [B] on the head's score scale, in place.

    All linear maps and the head's scale and shift are one affine map of what the maps read: the score is
    scale * (sum_m w_m n_m + b) + shift, n_m the (mixed, normed) states.
    """
    graph = model.graph
    states = state_outputs(model)
    assert len(states) == len(head.options.offsets), f"{len(states)} states for {len(head.options.offsets)} taps"
    parts = states if head.mix is None else [_mixed(graph, states, head.mix)]
    weights, bias = head.readout()
    total: ir.Value | None = None
    for number, (part, norm, weight) in enumerate(zip(parts, head.norms, weights, strict=True)):
        column = _constant(graph, f"head.weight_{number}", weight[:, None] * head.scale)  # [H, 1]
        product = _append(graph, "MatMul", [_normed(graph, part, norm, number), column], f"head.product_{number}")
        total = product if total is None else _append(graph, "Add", [total, product], f"head.sum_{number}")  # [B, 1]
    assert total is not None
    offset = head.shift if bias is None else bias * head.scale + head.shift
    total = _append(graph, "Add", [total, _constant(graph, "head.offset", offset.reshape(1))], "head.column")
    last_axis = ir.tensor(np.array([-1], np.int64), name="head.axis")
    axis = ir.Value(name="head.axis", shape=ir.Shape([1]), type=ir.TensorType(ir.DataType.INT64), const_value=last_axis)
    graph.register_initializer(axis)
    score = _append(graph, "Squeeze", [total, axis], "score")
    score.shape, score.type = ir.Shape([BATCH]), ir.TensorType(ir.DataType.FLOAT)
    graph.outputs[:] = [score, *(value for value in graph.outputs if value not in states)]


def _mixed(graph: ir.Graph, states: list[ir.Value], mix: Mix) -> ir.Value:
    """The weighting of states [B, H] that strategy dynamic has learnt, [B, H]."""
    joined = _append(graph, "Concat", states, "head.states", axis=-1)  # [B, K * H]
    return _append(graph, "MatMul", [joined, _constant(graph, "head.mix", mix.matrix())], "head.mixed")


def _normed(graph: ir.Graph, state: ir.Value, norm: nn.Module, number: int) -> ir.Value:
    """A state [B, H] after the LayerNorm that the head has for it, if it has one."""
    if not isinstance(norm, nn.LayerNorm):
        return state
    weight = _constant(graph, f"head.norm_{number}.weight", norm.weight)
    bias = _constant(graph, f"head.norm_{number}.bias", norm.bias)
    return _append(graph, "LayerNormalization", [state, weight, bias], f"head.normed_{number}", epsilon=norm.eps)


def _check(model: TappedRegressor) -> KeyValueShape:
    """Refuse what would be exported wrong or not at all; else the shape of keys and values."""
    decoder = model.decoder
    assert isinstance(decoder, PreTrainedModel), "an adapter is merged before the export"
    config = decoder.config
    family = config.model_type
    if family not in FAMILIES:
        raise UsageError(f"decoder family {family!r} cannot be exported; supported are {', '.join(FAMILIES)}")
    kind = moving_positions(config)
    if kind is not None:
        raise UsageError(
            f"this {family} decoder scales its positions by {kind!r}, which changes with the length of the prompt "
            "and cannot be exported; use a base with fixed rotary positions"
        )
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    return KeyValueShape(config.num_hidden_layers, getattr(config, "num_key_value_heads", None) or heads, size)


def _name_sizes(program: torch.onnx.ONNXProgram) -> None:
    """Give the dynamic sizes readable names throughout; the exporter numbers them, one more for every prefix input."""
    graph = program.model.graph
    names: dict[str | ir.SymbolicDim, str] = {}
    for value in graph.inputs:
        for size, name in zip(value.shape or (), _sizes(str(value.name)), strict=True):
            if isinstance(size, ir.SymbolicDim) and name is not None:
                names[size] = name
    program.rename_axes(names)
    for value in graph.outputs[len(state_outputs(program.model)) :]:
        assert value.shape is not None
        value.shape = ir.Shape([BATCH, value.shape[1], TOTAL, value.shape[3]])


def _mark_experts(model: ir.Model) -> None:
    """Mark the products of routers and experts, by the names of their weights, so that they stay in float32: a router
    that is off by a little sends a token to other experts, and experts are small."""
    for node in model.graph:
        if node.op_type == "MatMul" and str(operand(node, 1).name).endswith(PARTS):
            node.metadata_props[FLOAT] = ""


def _name_heads(model: ir.Model, query_heads: int, kv_heads: int) -> None:
    """Write both numbers on every `Attention`: ONNX tells them from shapes, which OpenVINO does not know yet when it
    reads the node; it then repeats no key/value heads (docs/edge.md)."""
    for node in model.graph:
        if node.op_type == "Attention":
            node.attributes.add(ir.AttrInt64("q_num_heads", query_heads))
            node.attributes.add(ir.AttrInt64("kv_num_heads", kv_heads))


def _sizes(name: str) -> tuple[str | None, ...]:
    """The names of an input's sizes; None for those that are fixed."""
    named: dict[str, tuple[str | None, ...]] = {"tokens": (BATCH, LENGTH), "last": (BATCH,)}
    return named.get(name, (None, None, PREFIX, None))


def _constant(graph: ir.Graph, name: str, tensor: Tensor) -> ir.Value:
    array = tensor.detach().float().contiguous().numpy()
    value = ir.Value(
        name=name,
        shape=ir.Shape(array.shape),
        type=ir.TensorType(ir.DataType.FLOAT),
        const_value=ir.tensor(array, name=name),
    )
    graph.register_initializer(value)
    return value


def _append(graph: ir.Graph, operator: str, inputs: list[ir.Value], output: str, **attributes: float | int) -> ir.Value:
    node = ir.node(operator, inputs, attributes, outputs=[ir.Value(name=output)], name=output)
    graph.append(node)
    return node.outputs[0]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on optional packages, on torch's own deprecations, and on forwards that
    `last_position_above` changes and restores."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*is deprecated", category=FutureWarning)
            warnings.filterwarnings("ignore", message="While compiling, we found certain side effects")
            yield
    finally:
        log.setLevel(level)
