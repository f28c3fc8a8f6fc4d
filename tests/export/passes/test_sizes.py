"""Nothing is computed from shapes: every family, kind of adapter and head, as the exporter writes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch

from qe_edge_export.graph import attach_head, export_states, key_value_shape
from qe_edge_export.passes import quantise_weight_only, simplify, to_half
from qe_edge_export.passes.linear import constant
from qe_edge_export.samples import CalibrationRows, PairRows, opened
from qe_edge_train.decoder import FAMILIES
from qe_edge_train.tapped import TappedRegressor

TinyRegressor = Callable[..., TappedRegressor]

OF_SHAPES = ("Shape", "Size", "Range", "ConstantOfShape")
"""Operators that give or take sizes: ONNX Runtime's CUDA provider has these numbers in the host's memory."""
ON_HOST = MappingProxyType(
    {
        **dict.fromkeys(("Reshape", "Expand", "Unsqueeze", "Squeeze", "Split", "TopK", "CumSum"), 1),
        **dict.fromkeys(("ReduceMax", "ReduceMean", "ReduceMin", "Slice"), 1),
    }
)
"""By operator, from which input on that provider reads numbers in the host's memory."""


@dataclass(frozen=True)
class Case:
    """A graph as exported and the same after the pass, both with a head."""

    before: ir.Model
    after: ir.Model


@pytest.fixture(scope="module", params=[*FAMILIES, "experts", "several taps", "full_blocks"])
def case(request: pytest.FixtureRequest, tiny_regressor: TinyRegressor) -> Case:
    if request.param == "experts":
        model = tiny_regressor("llama", 1, experts=(1, 3, 2))
    elif request.param == "several taps":
        model = tiny_regressor("gemma3_text", 1, 2, strategy="dynamic")
    elif request.param == "full_blocks":
        model = tiny_regressor("llama", 1)
        model.full_blocks = 2
    else:
        model = tiny_regressor(request.param, 1)
    before = export_states(model)
    after = before.clone()
    simplify(after)
    for graph in (before, after):
        attach_head(graph, model.head)
    return Case(before, after)


def host_work(model: ir.Model) -> list[str]:
    """Nodes that compute sizes, or that are told something the host would have to wait for."""
    found = []
    for node in model.graph:
        told = node.inputs[ON_HOST.get(node.op_type, len(node.inputs)) :]
        if node.op_type in OF_SHAPES or any(value is not None and constant(value) is None for value in told):
            found.append(f"{node.op_type} {node.name}")
    return found


def test_a_graph_as_exported_computes_sizes(case: Case) -> None:
    assert len(host_work(case.before)) > 10


def test_a_simplified_graph_does_not(case: Case) -> None:
    assert not host_work(case.after)


@pytest.mark.parametrize(
    ("batch", "length", "prefix"), [(1, 1, 4), (1, 9, 0), (2, 5, 0), (3, 9, 7), (4, 1, 2), (4, 6, 1)]
)
def test_every_output_stays_the_same_to_the_last_bit(case: Case, batch: int, length: int, prefix: int) -> None:
    shape = key_value_shape(case.before)
    tokens = torch.randint(3, 90, (batch, length), generator=torch.Generator().manual_seed(1)).numpy()
    last = np.arange(batch) % length
    with opened(case.before, shape) as before, opened(case.after, shape) as after:
        past = before.prefix(range(3, 3 + prefix)) if prefix else before.nothing
        names = ("score", *shape.outputs)
        for name, expected, found in zip(
            names, before.run(past, tokens, last, names), after.run(past, tokens, last, names), strict=True
        ):
            np.testing.assert_array_equal(found, expected, err_msg=name)


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_a_prefix_that_is_no_number_leaves_no_score(case: Case, broken: float) -> None:
    shape = key_value_shape(case.after)
    tokens, last = np.full((2, 3), 7), np.array([2, 1])
    with opened(case.after, shape) as graph:
        usual = graph.prefix([5, 6])
        filled = {
            name: ort.OrtValue.ortvalue_from_numpy(np.full_like(past.numpy(), broken)) for name, past in usual.items()
        }
        (scores,) = graph.run(filled, tokens, last)
    assert not np.isfinite(scores).any()


@pytest.mark.parametrize("bits", [4, 16])
def test_precisions_for_a_gpu_add_none(case: Case, bits: int) -> None:
    model, shape = case.after.clone(), key_value_shape(case.after)
    rows = CalibrationRows((PairRows([5, 6], [[7, 8, 9], [10, 11]]),), shape)
    if bits == 16:
        to_half(model, rows)
    else:
        quantise_weight_only(model, rows, bits=bits, embedding_bits=8)
    assert not host_work(model)


def test_in_half_precision_the_prefix_is_cast_before_it_is_copied_for_every_row(case: Case) -> None:
    model, shape = case.after.clone(), key_value_shape(case.after)
    to_half(model, CalibrationRows((PairRows([5, 6], [[7, 8, 9], [10, 11]]),), shape))
    past = [value for value in model.graph.inputs if str(value.name).startswith("past_")]
    assert len(past) == 2 * shape.blocks
    for value in past:
        (cast,) = [node for node, _ in value.uses() if node.op_type != "Gather"]  # one is counted, too
        assert cast.op_type == "Cast"
        assert {node.op_type for node, _ in cast.outputs[0].uses()} == {"Add"}
