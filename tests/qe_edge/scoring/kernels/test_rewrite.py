"""The embedded bundle's graph with kernels in it, and graphs whose patterns differ."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from qe_edge.bundle import EMBEDDED_BUNDLE, MODEL_FILE, WEIGHTS_FILE
from qe_edge.rows import Row
from qe_edge.scoring import Scorer
from qe_edge.scoring.graph import Graph, KeyValueShape
from qe_edge.scoring.kernels.library import AVX2, AVX512, SWITCH, library
from qe_edge.scoring.kernels.packing import Unit, unit_of_int8
from qe_edge.scoring.kernels.rewrite import FOR_AVX2, IN_FLOAT32, WITH_KERNELS, runs_on, with_kernels
from tests.qe_edge.scoring.kernels.conftest import processor_has

HEAD = 64
"""size of a head of the embedded bundle's"""
ALL = {"AddNormQuantize": 37, "AttendQuantize": 19, "SwigluQuantize": 20}
PRODUCTS = {"AttendQuantize": 19, "GatedQuantize": 20, "Linear": 63, "LinearAddNormQuantize": 37}
"""on a machine that multiplies int8"""
SHAPE = KeyValueShape(20, 3, HEAD)
MODEL = EMBEDDED_BUNDLE / MODEL_FILE
Change = Callable[[onnx.GraphProto], object]


def values(sample: Path) -> NDArray[np.float64]:
    """The scores of the sample by the embedded bundle."""
    with sample.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    rows = [Row.translation(line["original"], line["translation"], *line["lp"].split("-")) for line in lines]
    with Scorer.load() as scorer:
        return np.array([score.value for score in scorer.score(rows)], np.float64)


def first(graph: onnx.GraphProto, operator: str) -> onnx.NodeProto:
    found: onnx.NodeProto = next(node for node in graph.node if node.op_type == operator)
    return found


def set_attribute(operator: str, name: str, value: int) -> Change:
    def change(graph: onnx.GraphProto) -> None:
        node = first(graph, operator)
        kept = [attribute for attribute in node.attribute if attribute.name != name]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute(name, value)])

    return change


def read_again(operator: str) -> Change:
    """The first output of this operator goes into one more node, on which an output depends."""

    def change(graph: onnx.GraphProto) -> None:
        graph.node.append(helper.make_node("Identity", [first(graph, operator).output[0]], ["copied"]))
        graph.output.append(helper.make_tensor_value_info("copied", onnx.TensorProto.FLOAT, None))

    return change


def fused(model: onnx.ModelProto, folder: Path) -> Counter[str]:
    """The kernels that another graph with the bundle's weights gets."""
    (folder / MODEL_FILE).write_bytes(model.SerializeToString())
    (folder / WEIGHTS_FILE).symlink_to(MODEL.with_name(WEIGHTS_FILE))
    rewritten = with_kernels(folder / MODEL_FILE, HEAD)
    assert rewritten is not None
    return rewritten.fused


CHANGES: dict[str, tuple[Change, set[str]]] = {
    "softcap": (set_attribute("Attention", "softcap", 3), {"AttendQuantize"}),
    "causal": (set_attribute("Attention", "is_causal", 1), {"AttendQuantize"}),
    "interleaved": (set_attribute("RotaryEmbedding", "interleaved", 1), {"AttendQuantize"}),
    "part of a head turned": (set_attribute("RotaryEmbedding", "rotary_embedding_dim", 32), {"AttendQuantize"}),
    "norm over another axis": (set_attribute("RMSNormalization", "axis", 1), set()),
    "what attention gives is read elsewhere": (read_again("Attention"), {"AttendQuantize"}),
    "steps of all tokens": (set_attribute("ReduceMax", "keepdims", 0), {"AttendQuantize", "AddNormQuantize"}),
}


@pytest.mark.parametrize(("change", "lost"), CHANGES.values(), ids=CHANGES)
def test_another_pattern_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Change, lost: set[str]
) -> None:
    monkeypatch.setenv(SWITCH, "float32")
    model = onnx.load(MODEL, load_external_data=False)
    change(model.graph)
    assert fused(model, tmp_path) == {name: count - (name in lost) for name, count in ALL.items()}


def test_what_the_processor_has_is_found() -> None:
    found = library()
    assert found is not None
    if found.name == AVX512:
        expected = Unit.TILES if processor_has("amx_int8") else Unit.DOTS if processor_has("avx512_vnni") else Unit.NONE
    else:
        expected = Unit.DOTS if processor_has("avx_vnni") else Unit.PAIRS
    assert unit_of_int8(found) is expected


def test_embedded_bundle_uses_the_kernels_and_is_a_graph_that_onnx_reads(unit: Unit) -> None:
    rewritten = with_kernels(MODEL, HEAD)
    assert rewritten is not None
    products = unit is not Unit.NONE
    assert unit_of_int8(rewritten.library) is unit
    assert rewritten.fused == (PRODUCTS if products else ALL)
    before, after = onnx.load(MODEL, load_external_data=False), onnx.load_model_from_string(rewritten.model)
    assert len(after.graph.node) < len(before.graph.node) / 2
    constants = before.graph.initializer
    assert list(after.graph.initializer)[: len(constants)] == list(constants)
    assert len(after.graph.initializer) == len(constants) + len(rewritten.weights) == len(constants) + 140 * products
    assert [value.name for value in after.graph.input] == [value.name for value in before.graph.input] + ["extend"]
    assert after.graph.output == before.graph.output


@pytest.mark.usefixtures("products")
@pytest.mark.parametrize("is_output", [True, False])
def test_a_product_that_something_else_reads_stays_a_node_of_its_own(tmp_path: Path, *, is_output: bool) -> None:
    model = onnx.load(MODEL, load_external_data=False)
    added = {name for node in model.graph.node if node.op_type == "Add" for name in node.input}
    scaled = {name for node in model.graph.node if added.intersection(node.output) for name in node.input}
    products = (node for node in model.graph.node if node.op_type == "MatMulIntegerToFloat")
    name = next(node.output[0] for node in products if node.output[0] in scaled)
    if not is_output:
        model.graph.node.append(helper.make_node("Identity", [name], ["copied"]))
    value = helper.make_tensor_value_info(name if is_output else "copied", onnx.TensorProto.FLOAT, None)
    model.graph.output.append(value)
    assert fused(model, tmp_path) == PRODUCTS | {"AddNormQuantize": 1, "LinearAddNormQuantize": 36, "Linear": 64}


@pytest.mark.usefixtures("products")
def test_products_with_other_scales_than_those_of_tokens_stay_nodes_of_their_own(tmp_path: Path) -> None:
    model = onnx.load(MODEL, load_external_data=False)
    makers = {name: node for node in model.graph.node for name in node.output}
    inputs = {name: makers[name].op_type for node in model.graph.node for name in node.input if name in makers}
    scaled = next(
        node
        for node in model.graph.node
        if node.op_type == "Mul" and [inputs.get(name) for name in node.input] == ["MatMulIntegerToFloat", "Div"]
        if any(node.output[0] in other.input and other.op_type == "Sigmoid" for other in model.graph.node)
    )
    model.graph.node.append(helper.make_node("Identity", [scaled.input[1]], ["copied"]))
    scaled.input[1] = "copied"
    assert fused(model, tmp_path) == PRODUCTS | {"GatedQuantize": 19, "SwigluQuantize": 1, "Linear": 65}


@pytest.mark.usefixtures("products")
def test_scales_of_tokens_take_the_place_of_a_scale_of_one_alone(tmp_path: Path) -> None:
    model = onnx.load(MODEL, load_external_data=False)
    scales = {node.input[2] for node in model.graph.node if node.op_type == "MatMulIntegerToFloat"}
    ones = [t for t in model.graph.initializer if t.name in scales and numpy_helper.to_array(t) == 1]
    for one in ones:
        one.raw_data = np.float32(0.5).tobytes()
    assert ones
    assert fused(model, tmp_path) == PRODUCTS | {"GatedQuantize": 18, "SwigluQuantize": 2, "Linear": 67}


def test_heads_that_the_kernel_does_not_take_stay_as_they_are() -> None:
    rewritten = with_kernels(MODEL, 48)
    assert rewritten is not None
    assert "AttendQuantize" not in rewritten.fused
    assert not rewritten.extends


def test_names_that_the_rewriting_needs_are_left_to_the_graph(tmp_path: Path) -> None:
    model = onnx.load(MODEL, load_external_data=False)
    for node in model.graph.node:
        node.input[:] = ["extend" if name == "tokens" else name for name in node.input]
    (tmp_path / MODEL_FILE).write_bytes(model.SerializeToString())
    assert with_kernels(tmp_path / MODEL_FILE, HEAD) is None


@pytest.mark.parametrize("head_dim", [320, 512])
def test_heads_wider_than_the_kernel_takes_stay_as_they_are(head_dim: int) -> None:
    rewritten = with_kernels(MODEL, head_dim)
    assert rewritten is not None
    assert "AttendQuantize" not in rewritten.fused


def test_the_signature_says_whether_attention_is_in_float32(unit: Unit) -> None:
    found = library()
    assert found is not None
    halves = unit is not Unit.NONE and processor_has("avx512_bf16")
    expected = FOR_AVX2 if found.name == AVX2 else WITH_KERNELS if halves else IN_FLOAT32
    assert runs_on(MODEL, HEAD) == expected
    with Scorer.load() as scorer:
        assert scorer.signature.endswith(f"| {expected}")


def test_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SWITCH, "off")
    assert with_kernels(MODEL, HEAD) is None
    assert runs_on(MODEL, HEAD) == "cpu"
    with Scorer.load() as scorer:
        assert scorer.signature.endswith("| cpu")


@pytest.mark.usefixtures("unit")
def test_scores_are_those_of_the_graph_without_kernels_but_for_roundings(
    sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = values(sample)
    monkeypatch.setenv(SWITCH, "off")
    plain = values(sample)
    assert 0 < np.abs(fast - plain).mean() < 1.5
    assert np.corrcoef(fast, plain)[0, 1] > 0.99


@pytest.mark.usefixtures("unit")
def test_keys_and_values_of_the_first_block_are_those_of_the_graph_without_kernels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tokens = list(range(100, 130))
    fast = Graph(MODEL, SHAPE)
    after = fast.extend(fast.prefix(tokens), [tokens[:5], tokens[:9]])[1]
    monkeypatch.setenv(SWITCH, "off")
    plain = Graph(MODEL, SHAPE)
    expected = plain.extend(plain.prefix(tokens), [tokens[:5], tokens[:9]])[1]
    for name in SHAPE.inputs[:2]:
        np.testing.assert_allclose(after[name].numpy(), expected[name].numpy(), atol=1e-4)
    for name in SHAPE.inputs:
        assert after[name].shape() == [1, 3, 39, HEAD]
        # roundings to 8 bits that flip move the upper blocks of so short a text
        assert np.corrcoef(after[name].numpy().ravel(), expected[name].numpy().ravel())[0, 1] > 0.97
