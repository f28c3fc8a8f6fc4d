"""Every pass leaves what a graph computes as it is, and does what it is for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from qe_edge_export.passes import simplify
from qe_edge_export.passes.linear import linears
from qe_edge_export.passes.simplify import (
    fuse_linears,
    read_last_position_early,
    remove_unused,
    share_subexpressions,
)

Decoders = Callable[[str], ir.Model]
Run = Callable[..., dict[str, NDArray[Any]]]
Feeds = dict[str, NDArray[Any]]
Outputs = dict[str, NDArray[Any]]


def counts(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in model.graph)


def assert_same(before: Outputs, after: Outputs) -> None:
    assert before.keys() == after.keys()
    for name, expected in before.items():
        np.testing.assert_allclose(after[name], expected, rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    "rewrite", [simplify, share_subexpressions, remove_unused, fuse_linears, read_last_position_early]
)
def test_no_pass_changes_an_output_of_any_family(
    rewrite: Callable[[ir.Model], None], family: ir.Model, run: Run, cases: list[Feeds]
) -> None:
    before = [run(family, feeds) for feeds in cases]
    rewrite(family)
    for feeds, expected in zip(cases, before, strict=True):
        assert_same(expected, run(family, feeds))


def test_outputs_keep_their_names_and_order(family: ir.Model) -> None:
    names = [value.name for value in family.graph.outputs]
    simplify(family)
    assert [value.name for value in family.graph.outputs] == names


def test_cosines_and_sines_are_computed_once(decoder: Decoders) -> None:
    model = decoder("llama")
    assert counts(model)["Cos"] == 4  # queries and keys of two blocks
    share_subexpressions(model)
    assert counts(model)["Cos"] == counts(model)["Sin"] == 1


@pytest.mark.parametrize(
    ("name", "widths"),
    [
        # queries 32, keys 16, values 16; gate 48, up 48; the other two are attention output and down
        ("llama", [64, 32, 96, 32] * 2),
        ("qwen2", [64, 32, 96, 32] * 2),
        # there already
        ("phi3", [64, 32, 96, 32] * 2),
        # all five read the one norm
        ("cohere", [160, 32, 32] * 2),
    ],
)
def test_products_of_one_input_become_one(decoder: Decoders, name: str, widths: list[int]) -> None:
    model = decoder(name)
    fuse_linears(model)
    assert [linear.weight.shape[1] for linear in linears(model)] == widths


def test_biases_are_fused_too_and_missing_ones_are_zero(decoder: Decoders) -> None:
    model = decoder("qwen2")
    parts = linears(model)[:3]  # queries, keys, values
    biases = [part.bias_values for part in parts]
    assert parts[2].bias is not None
    parts[2].bias.outputs[0].replace_all_uses_with(parts[2].product.outputs[0])  # values without a bias
    remove_unused(model)
    fuse_linears(model)
    fused = linears(model)[0].bias_values
    assert fused is not None
    assert biases[0] is not None
    assert biases[1] is not None
    np.testing.assert_array_equal(fused, np.concatenate([biases[0], biases[1], np.zeros(16)]))


def test_the_last_block_is_computed_at_the_last_position_only(decoder: Decoders) -> None:
    model = decoder("llama")
    read_last_position_early(model)
    ranks = [linear.input.shape.rank() for linear in linears(model) if linear.input.shape is not None]
    # twice: queries, keys, values, attention output, gate, up, down
    assert ranks == [3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 2, 2, 2, 2]


def test_the_last_position_is_left_alone_where_shapes_are_unknown(decoder: Decoders) -> None:
    model = decoder("llama")
    for node in model.graph:
        for value in node.outputs:
            value.shape = None
    before = counts(model)
    read_last_position_early(model)
    assert counts(model) == before


def test_unused_nodes_and_constants_go(decoder: Decoders) -> None:
    model = decoder("llama")
    before = counts(model)
    unused = ir.node("MatMul", [model.graph[-1].outputs[0], linears(model)[0].product.inputs[1]])
    model.graph.append(unused)
    remove_unused(model)
    assert counts(model) == before
