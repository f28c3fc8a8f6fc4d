"""The embedding in blocks of 32: worked blocks, and a table that the runtime reads back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from qe_edge.errors import UsageError
from qe_edge_export.passes import most_frequent, quantise_embedding
from qe_edge_export.passes.embedding import quantise_blocks
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


def test_a_worked_block_in_4_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qe_edge_export.passes.embedding.CLIPS", (1.0,))  # the whole range, nothing clipped
    # from -3 to 12 in steps of 1: zero point 3, so that every whole number is exact
    block = np.array([[-3, 12, 0, 5, 7.5, 6.5] + [1] * 26], np.float32)
    found = quantise_blocks(block, 4)
    # 7.5 -> 8 and 6.5 -> 6, halves to even, plus 3
    assert found.integers[0, :7].tolist() == [0, 15, 3, 8, 11, 9, 4]
    assert found.zeros.tolist() == [[3]]
    assert found.steps.tolist() == [[1]]
    assert found.floats()[0, :7].tolist() == [-3, 12, 0, 5, 8, 6, 1]


def test_a_lone_outlier_is_clipped_for_the_sake_of_the_rest() -> None:
    # with the whole range a step is 1, and 0.6 is read as 1 thirty-one times: error 31 * .16 = 4.96
    block = np.array([[15] + [0.6] * 31], np.float32)
    error = np.square(quantise_blocks(block, 4).floats() - block).sum()
    assert error < 4.5


def test_a_block_of_zeros_stays_zero() -> None:
    for bits in (4, 8):
        assert not quantise_blocks(np.zeros((1, 32), np.float32), bits).floats().any()


def test_a_table_that_was_in_8_bit_blocks_is_kept_exactly() -> None:
    random = np.random.default_rng(0)
    integers = random.integers(-127, 128, (50, 3, 32))
    integers[:, :, 0] = 127  # what the step was made from
    steps = random.uniform(1e-3, 1e-2, (50, 3, 1)).astype(np.float16)
    table = (integers * steps.astype(np.float32)).astype(np.float32).reshape(50, 96)
    np.testing.assert_array_equal(quantise_blocks(table, 8).floats(), table)


def test_more_rows_than_are_quantised_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    table = np.random.default_rng(0).standard_normal((10, 64)).astype(np.float32)
    whole = quantise_blocks(table, 4).floats()
    monkeypatch.setattr("qe_edge_export.passes.embedding.ROWS_AT_ONCE", 3)
    np.testing.assert_array_equal(quantise_blocks(table, 4).floats(), whole)


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
    tokens = np.arange(40).reshape(2, 20)
    feeds = {**cases[0], "tokens": tokens, "last": np.array([1, 1])}
    np.testing.assert_allclose(run(model, feeds, [name])[name], expected[tokens], rtol=1e-3)


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
