"""Half precision: what is float16 and what stays float32, and decoders that float16 cannot hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from qe_edge.errors import GateError
from qe_edge_export.calibrate import CalibrationRows
from qe_edge_export.passes import simplify, to_half
from qe_edge_export.passes.half import LARGEST
from qe_edge_export.passes.linear import FLOAT, as_linear, linears, operand, set_constant

Decoders = Callable[[str], ir.Model]
Run = Callable[..., dict[str, NDArray[Any]]]
Feeds = dict[str, NDArray[Any]]


def nodes(model: ir.Model, operator: str) -> list[ir.Node]:
    found = [node for node in model.graph if node.op_type == operator]
    assert found, operator
    return found


def read(node: ir.Node, index: int = 0) -> ir.DataType | None:
    return operand(node, index).dtype


@pytest.mark.parametrize("simplified", [False, True])
def test_a_whole_decoder_in_half_stays_close_and_batch_independent(
    simplified: bool, family: ir.Model, run: Run, rows: CalibrationRows, cases: list[Feeds]
) -> None:
    if simplified:
        simplify(family)
    before = [run(family, feeds) for feeds in cases]
    to_half(family, rows)
    for feeds, expected in zip(cases, before, strict=True):
        found = run(family, feeds)
        assert found.keys() == expected.keys()
        for name, value in found.items():
            assert value.dtype == np.float32
            error = np.linalg.norm(value - expected[name]) / np.linalg.norm(expected[name])
            assert error < 0.004, name
        assert np.abs(found["state"] - expected["state"]).max() > 0
        for row in range(len(found["state"])):
            alone = {**feeds, "tokens": feeds["tokens"][row : row + 1], "last": feeds["last"][row : row + 1]}
            np.testing.assert_allclose(run(family, alone)["state"][0], found["state"][row], rtol=2e-3, atol=2e-3)


def test_products_and_attention_are_float16_and_the_residual_stream_is_not(
    family: ir.Model, rows: CalibrationRows
) -> None:
    simplify(family)
    to_half(family, rows)
    for operator, inputs in (("MatMul", 2), ("Attention", 3)):
        for node in nodes(family, operator):
            assert {read(node, index) for index in range(inputs)} == {ir.DataType.FLOAT16}
    for node in family.graph:
        if node.op_type in ("RMSNormalization", "LayerNormalization"):
            assert read(node) == read(node, 1) == ir.DataType.FLOAT
    for value in family.graph.outputs:
        assert value.dtype == ir.DataType.FLOAT


def test_all_weights_and_the_embedding_take_two_bytes_a_number(family: ir.Model, rows: CalibrationRows) -> None:
    simplify(family)
    to_half(family, rows)
    constants = [value for value in family.graph.initializers.values() if value.const_value is not None]
    matrices = [value for value in constants if len(value.shape or ()) == 2 and value.const_value.size > 100]  # type: ignore[union-attr]
    assert len(matrices) > 8
    assert {value.dtype for value in matrices} == {ir.DataType.FLOAT16}


def test_nothing_is_cast_there_and_back(family: ir.Model, rows: CalibrationRows) -> None:
    simplify(family)
    to_half(family, rows)
    for node in nodes(family, "Cast"):
        before = operand(node, 0).producer()
        assert before is None or before.op_type != "Cast"
    sources = [operand(node, 0) for node in nodes(family, "Cast")]
    assert len(sources) == len(set(sources)), "a value is cast twice"


def test_a_layer_marked_to_stay_in_float_is_left_as_it_is(decoder: Decoders, rows: CalibrationRows) -> None:
    model = decoder("llama")
    marked = linears(model)[4].product
    marked.metadata_props[FLOAT] = ""

    to_half(model, rows)

    assert as_linear(marked) is not None
    assert read(marked) == read(marked, 1) == ir.DataType.FLOAT


def test_activations_that_float16_cannot_hold_are_refused(decoder: Decoders, rows: CalibrationRows) -> None:
    model = decoder("llama")
    down = linears(model)[6]
    down.set_weight(down.weight * np.float32(1e5))

    with pytest.raises(
        GateError, match=r"fp16: activations reach \d.* on training rows, float16 ends at 65504"
    ) as caught:
        to_half(model, rows)

    assert "\n" not in str(caught.value)
    assert "nothing was written; export with --precision" in str(caught.value)


def test_a_weight_that_float16_cannot_hold_is_refused(decoder: Decoders, rows: CalibrationRows) -> None:
    model = decoder("llama")
    layer = linears(model)[0]
    weight = layer.weight.copy()
    weight[3] = 0
    norm = layer.input.producer()
    assert norm is not None
    scale = np.ones(32, np.float32)
    scale[3] = 0  # so that no activation is large
    weight[3, 0] = 2 * LARGEST
    layer.set_weight(weight)
    set_constant(norm, 1, scale, "scale")

    with pytest.raises(GateError, match=r"fp16: weights reach 1\.31e\+05, float16 ends at 65504; nothing was written"):
        to_half(model, rows)


def test_activations_that_are_no_numbers_are_refused(decoder: Decoders, rows: CalibrationRows) -> None:
    model = decoder("llama")
    layer = linears(model)[0]
    layer.set_weight(np.full_like(layer.weight, np.nan))

    with pytest.raises(GateError, match="fp16: activations reach nan"):
        to_half(model, rows)
