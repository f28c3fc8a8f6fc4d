"""The embedding in blocks of 32: a table that the runtime reads back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from qe_edge.errors import UsageError
from qe_edge_export.passes import most_frequent, quantise_embedding
from qe_edge_export.passes.blocks import quantise_blocks
from qe_edge_export.passes.linear import constant, set_constant

Decoders = Callable[[str], ir.Model]
Run = Callable[..., dict[str, NDArray[Any]]]
Feeds = dict[str, NDArray[Any]]


def lookup(model: ir.Model) -> ir.Node:
    return next(node for node in model.graph if node.op_type == "Gather")


def table_of(model: ir.Model) -> NDArray[np.float32]:
    table = constant(lookup(model).inputs[0])
    assert table is not None
    return table


@pytest.mark.parametrize(("bits", "bound"), [(4, 0.12), (8, 0.01)])
def test_the_runtime_reads_what_was_stored(
    decoder: Decoders, run: Run, cases: list[Feeds], bits: int, bound: float
) -> None:
    model = decoder("llama")
    table = table_of(model)
    name = str(lookup(model).outputs[0].name)
    quantise_embedding(model, bits)
    tokens = cases[0]["tokens"]
    found = run(model, cases[0], [name])[name]
    assert found.dtype == np.float32
    expected = quantise_blocks(table, bits).floats()[tokens]
    np.testing.assert_allclose(found, expected, rtol=1e-3)  # the operator multiplies in float16
    assert np.linalg.norm(found - table[tokens]) / np.linalg.norm(table[tokens]) < bound


def test_4_bits_take_at_most_five_bits_a_number(decoder: Decoders) -> None:
    model = decoder("llama")
    size = table_of(model).size
    before = set(model.graph.initializers)
    quantise_embedding(model, 4)
    added = [value for name, value in model.graph.initializers.items() if name not in before]
    stored = sum(value.const_value.nbytes for value in added if value.const_value is not None)
    # 4 bits each, and for each block of 32 a step of 16 bits and a zero point of 4
    assert stored == size * (4 + 20 / 32) / 8


def test_frequent_tokens_keep_8_bits_and_the_others_have_4(decoder: Decoders, run: Run, cases: list[Feeds]) -> None:
    model = decoder("llama")
    table = table_of(model)
    name = str(lookup(model).outputs[0].name)
    frequent = [39, 0, 7, 8]
    quantise_embedding(model, 4, frequent)
    expected = quantise_blocks(table, 4).floats()
    expected[frequent] = quantise_blocks(table[frequent], 8).floats()
    for tokens in (np.arange(40).reshape(2, 20), np.array([frequent]), np.array([[1, 2], [3, 4]])):
        feeds = {**cases[0], "tokens": tokens, "last": np.ones(len(tokens), np.int64)}
        np.testing.assert_allclose(run(model, feeds, [name])[name], expected[tokens], rtol=1e-3)
    # of a step that is not a constant OpenVINO takes nothing (docs/edge.md)
    gathers = [node for node in model.graph if node.op_type == "GatherBlockQuantized"]
    assert [constant(gather.inputs[2]) is not None for gather in gathers] == [True, True]


def test_the_most_frequent_ids_come_first_and_ties_by_id() -> None:
    assert most_frequent([[5, 5, 9], [2, 9, 5], [1]], 3) == [5, 9, 1]
    assert most_frequent([[4]], 3) == [4]


def test_other_bits_and_odd_sizes_are_refused(decoder: Decoders) -> None:
    model = decoder("llama")
    with pytest.raises(UsageError, match="embedding in 5 bits is not supported; use 4 or 8"):
        quantise_embedding(model, 5)
    set_constant(lookup(model), 0, np.zeros((40, 20), np.float32), "odd")
    with pytest.raises(UsageError, match="hidden size 20"):
        quantise_embedding(model, 4)
