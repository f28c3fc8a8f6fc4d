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
from qe_edge_export.passes.simplify import remove_unused, share_subexpressions

Decoders = Callable[..., ir.Model]
Run = Callable[..., dict[str, NDArray[Any]]]
Feeds = dict[str, NDArray[Any]]
FAMILIES = ("llama", "qwen2", "phi3", "cohere", "gemma3", "layer_norm")
Outputs = dict[str, NDArray[Any]]


def counts(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in model.graph)


def assert_same(before: Outputs, after: Outputs) -> None:
    assert before.keys() == after.keys()
    for name, expected in before.items():
        np.testing.assert_allclose(after[name], expected, rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("rewrite", [simplify, share_subexpressions, remove_unused])
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


@pytest.mark.parametrize("name", FAMILIES)
def test_several_taps_keep_their_states(decoder: Decoders, run: Run, cases: list[Feeds], name: str) -> None:
    model = decoder(name, taps=2)
    before = [run(model, feeds) for feeds in cases]
    simplify(model)
    for feeds, expected in zip(cases, before, strict=True):
        assert {"state_0", "state_1"} < expected.keys()
        assert_same(expected, run(model, feeds))


def test_unused_nodes_and_constants_go(decoder: Decoders) -> None:
    model = decoder("llama")
    before = counts(model)
    unused = ir.node("MatMul", [model.graph[-1].outputs[0], linears(model)[0].product.inputs[1]])
    model.graph.append(unused)
    remove_unused(model)
    assert counts(model) == before
