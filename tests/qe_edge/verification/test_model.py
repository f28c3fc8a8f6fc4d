"""Graphs that a stranger could write are refused before ONNX Runtime sees them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from qe_edge.bundle import EMBEDDED_BUNDLE, open_bundle
from qe_edge.verification.model import NODE_COUNT, TENSOR_COUNT, check_model
from tests.qe_edge.verification.conftest import Refused, Rewrite

Change = Callable[[ModelProto], object]


def add_node(operator: str, *inputs: str, output: str = "out", domain: str = "", **attributes: Any) -> Change:
    node = helper.make_node(operator, list(inputs), [output], domain=domain, **attributes)
    return lambda model: model.graph.node.append(node)


def add_constant(name: str, values: Any) -> Change:
    return lambda model: model.graph.initializer.append(numpy_helper.from_array(np.asarray(values), name))


def all_of(*changes: Change) -> Change:
    return lambda model: [change(model) for change in changes]


def branch() -> onnx.GraphProto:
    return helper.make_graph([], "branch", [], [])


def test_the_embedded_graph_is_accepted() -> None:
    found = check_model(EMBEDDED_BUNDLE / "model.onnx", EMBEDDED_BUNDLE / "model.onnx.data")

    assert found == "1063 nodes of 36 operators, 415 constants, 88414896 bytes of weights"


def test_a_graph_without_changes_is_accepted(with_graph: Rewrite) -> None:
    open_bundle(with_graph(lambda model: None))


@pytest.mark.parametrize(
    "content", [b"", b"no graph at all", b"\x08\x0a", b"\x3a\x00", b"\x00" * 100, b"\xff" * 100, b"\x3a\xff\xff\x03"]
)
def test_a_file_that_is_no_graph_is_refused(with_file: Rewrite, refused: Refused, content: bytes) -> None:
    assert refused(with_file("model.onnx", content)).startswith(
        ("model.onnx: has no", "model.onnx: holds", "model.onnx: ends")
    )


def test_truncations_are_refused(with_file: Rewrite, refused: Refused, counting_bundle: Path) -> None:
    whole = (counting_bundle / "model.onnx").read_bytes()
    opset_begins = whole.rindex(b"\x42")  # without the operator set, ONNX Runtime refuses it
    for length in range(0, opset_begins, 29):
        assert refused(with_file("model.onnx", whole[:length])).startswith("model.onnx: ")


def test_a_name_that_is_no_text_is_refused(with_file: Rewrite, refused: Refused, counting_bundle: Path) -> None:
    content = (counting_bundle / "model.onnx").read_bytes()
    broken = content.replace(b"tokens", b"token\xf0")  # ONNX Runtime takes it
    assert r"has an input or output with the name b'token\xf0', which is not UTF-8" in refused(
        with_file("model.onnx", broken)
    )


def test_an_input_that_is_no_tensor_is_refused(with_graph: Rewrite, refused: Refused) -> None:
    def change(model: ModelProto) -> None:
        model.graph.input.append(helper.make_tensor_sequence_value_info("many", TensorProto.FLOAT, None))

    assert refused(with_graph(change)).startswith("model.onnx: holds sequences; ")


def test_two_graphs_that_protobuf_would_merge_are_refused(
    with_file: Rewrite, refused: Refused, counting_bundle: Path
) -> None:
    twice = (counting_bundle / "model.onnx").read_bytes() * 2
    assert refused(with_file("model.onnx", twice)).startswith("model.onnx: holds field 7 2 times; ")


def test_a_file_that_is_too_large_is_refused(with_graph: Rewrite, refused: Refused) -> None:
    folder = with_graph(lambda model: setattr(model, "doc_string", "a" * (4 << 20)))
    assert refused(folder) == (
        "model.onnx: larger than 4 MiB; qe-edge export writes no such bundle: export it again or fetch a fresh copy"
    )


def test_too_many_nodes_or_constants_are_refused(with_graph: Rewrite, refused: Refused) -> None:
    nodes = [helper.make_node("Neg", ["score"], [f"n{i}"]) for i in range(NODE_COUNT)]
    assert "has 20007 nodes, more than 20000" in refused(with_graph(lambda model: model.graph.node.extend(nodes)))

    def constants(model: ModelProto) -> None:
        del model.graph.node[7:]
        model.graph.initializer.extend(TensorProto(name=f"c{i}", data_type=1, dims=[0]) for i in range(TENSOR_COUNT))

    assert "has 20002 constants, more than 20000" in refused(with_graph(constants))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (add_node("If", "x", then_branch=branch(), else_branch=branch()), "the operator 'If', domain ''"),
        (add_node("Loop", "x", body=branch()), "the operator 'Loop', domain ''"),
        (add_node("Scan", "x", body=branch()), "the operator 'Scan', domain ''"),
        (add_node("Neg", "score", body=branch()), "a node Neg with an attribute that holds a nested graph"),
        (add_node("Neg", "score", bodies=[branch()]), "a node Neg with an attribute that holds nested graphs"),
        (add_node("Neg", "score", t=numpy_helper.from_array(np.ones(1))), "an attribute that holds a tensor"),
        (add_node("Constant", value_float=1.0), "the operator 'Constant', domain ''"),
        (add_node("ConstantOfShape", "last"), "the operator 'ConstantOfShape', domain ''"),
        (add_node("Tile", "score", "last"), "the operator 'Tile', domain ''"),
        (add_node("EPContext", "score", domain="com.microsoft"), "the operator 'EPContext', domain 'com.microsoft'"),
        (add_node("MatMulNBits", "score"), "the operator 'MatMulNBits', domain ''"),
        (add_node("PyOp", "score", domain="ai.onnx.contrib"), "operators of the domain 'ai.onnx.contrib'"),
        (add_node("Neg", "score", domain="evil\x1b[2J"), r"operators of the domain 'evil\x1b[2J'"),
        (add_node("", "score"), "the operator '', domain ''"),
        (lambda model: model.opset_import.add(domain="evil", version=1), "operators of the domain 'evil'"),
        (lambda model: model.functions.add(name="f"), "model.onnx: holds functions;"),
        (lambda model: model.training_info.add(), "model.onnx: holds training information;"),
        (lambda model: model.metadata_props.add(key="ort_config", value="{}"), "model.onnx: holds metadata;"),
        (lambda model: model.graph.sparse_initializer.add(), "model.onnx: holds sparse initialisers;"),
        (lambda model: model.graph.quantization_annotation.add(), "holds quantisation annotations;"),
        (lambda model: setattr(model.graph.node[0], "overload", "f"), "model.onnx: holds an overload;"),
    ],
)
def test_what_no_export_writes_is_refused(with_graph: Rewrite, refused: Refused, change: Change, expected: str) -> None:
    line = refused(with_graph(change))

    assert line.startswith("model.onnx: ")
    assert expected in line


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            all_of(add_constant("wide", np.array([1 << 40])), add_node("Expand", "score", "wide")),
            "unpacks constants to 8796093022208 bytes or more, ",
        ),
        (
            all_of(
                add_constant("wide", np.array([1 << 20, 1 << 20])),
                add_node("Concat", "prefix", "wide", output="shape", axis=0),
                add_node("Expand", "score", "shape"),
            ),
            "unpacks constants to 8796093022208 bytes or more, ",
        ),
        (
            all_of(add_constant("wide", np.full(32, 1 << 62)), add_node("Expand", "score", "wide")),
            "unpacks constants to ",
        ),
        (
            all_of(add_constant("shape", np.ones(33, np.int64)), add_node("Expand", "score", "shape")),
            "has an Expand whose shape is no short list of int64 in the graph",
        ),
        (
            all_of(add_constant("x", [1]), add_constant("wide", [1 << 40]), add_node("Expand", "x", "wide")),
            "has a node Expand that reads constants alone",
        ),
        (add_node("Range", "one", "one", "one"), "has a node Range that reads constants alone"),
        (add_node("Concat", *["one"] * 1000, axis=0), "has a node Concat that reads constants alone"),
        (
            all_of(
                add_constant("x", np.ones(100_000, np.float16)),
                add_constant("s", np.ones(1, np.float16)),
                *(add_node("QuantizeLinear", "x", "s", output=f"x{i}") for i in range(60)),
            ),
            "unpacks constants to ",
        ),
        (
            all_of(
                add_constant("x", np.ones(10_000, np.int8)),
                *(add_node("Cast", "x", output=f"x{i}", to=1) for i in range(30)),
            ),
            "unpacks constants to ",
        ),
    ],
)
def test_constants_that_unpack_to_more_than_the_files_are_refused(
    with_graph: Rewrite, refused: Refused, change: Change, expected: str
) -> None:
    assert expected in refused(with_graph(change))


def test_nodes_out_of_order_are_refused_before_they_hide_what_they_compute(
    with_graph: Rewrite, refused: Refused
) -> None:
    later = all_of(
        add_constant("wide", np.array([1 << 40])),
        add_node("Expand", "score", "shape"),
        add_node("Concat", "prefix", "wide", output="shape", axis=0),
    )
    assert "has a node Expand that reads 'shape' before it is computed" in refused(with_graph(later))


def test_two_constants_of_the_same_name_are_refused(with_graph: Rewrite, refused: Refused) -> None:
    assert "has two constants of the same name" in refused(with_graph(add_constant("one", [2])))


def test_a_value_that_is_computed_twice_is_refused(with_graph: Rewrite, refused: Refused) -> None:
    assert "has a node Neg that computes 'score' again" in refused(with_graph(add_node("Neg", "last", output="score")))


def test_weights_in_4_bits_that_are_expanded_when_the_graph_is_loaded_are_accepted(with_graph: Rewrite) -> None:
    packed = helper.make_tensor("packed", TensorProto.UINT4, [64, 4], np.zeros(128, np.uint8).tobytes(), raw=True)
    expand = all_of(
        lambda model: model.graph.initializer.append(packed),
        add_constant("divisors", np.ones((2, 4), np.float16)),
        add_constant("zeros", np.zeros((2, 4), np.int8)),
        add_node("Cast", "packed", output="half", to=int(TensorProto.FLOAT16)),
        add_node("QuantizeLinear", "half", "divisors", "zeros", axis=0, block_size=32),
    )
    open_bundle(with_graph(expand))


def test_a_cast_of_a_constant_is_accepted(with_graph: Rewrite) -> None:
    open_bundle(with_graph(all_of(add_constant("x", np.ones(100, np.float16)), add_node("Cast", "x", to=1))))
