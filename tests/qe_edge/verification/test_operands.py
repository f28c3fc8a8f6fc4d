"""Operators whose inputs do not fit together are refused: ONNX Runtime would read beyond them, or end the process."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper

from qe_edge.bundle import open_bundle
from qe_edge.verification.nodes import LARGEST_ATTRIBUTE
from tests.qe_edge.verification.conftest import Refused, Rewrite

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Case:
    """A node whose first inputs are constants of these shapes; None is a value."""

    operator: str
    shapes: list[Shape | None]
    numbers: dict[str, Any] = dataclasses.field(default_factory=dict)
    domain: str = "com.microsoft"

    def __call__(self, model: ModelProto) -> None:
        names = []
        for place, shape in enumerate(self.shapes):
            names.append("numbers" if shape is None else f"constant_{place}")
            if shape is not None:
                content = np.zeros(shape, np.uint8).tobytes()
                model.graph.initializer.append(
                    helper.make_tensor(names[-1], TensorProto.UINT8, shape, content, raw=True)
                )
        model.graph.node.append(helper.make_node(self.operator, names, ["out"], domain=self.domain, **self.numbers))


PRODUCT = {"K": 40, "N": 6, "bits": 4, "block_size": 32}
TABLE = {"bits": 8, "block_size": 32, "gather_axis": 0, "quantize_axis": 1}
FIT = [
    Case("MatMulIntegerToFloat", [None, (8, 6), (), (6,), ()]),
    Case("MatMulNBits", [None, (6, 2, 16), (6, 2)], PRODUCT),
    Case("MatMulNBits", [None, (6, 2, 16), (6, 2), (6, 1)], PRODUCT),
    Case("MatMulNBits", [None, (6, 2, 32), (6, 2), (6, 2)], {**PRODUCT, "bits": 8}),
    Case("GatherBlockQuantized", [(9, 40), None, (9, 2)], TABLE),
    Case("GatherBlockQuantized", [(9, 40), None, (9, 2), (9, 2)], TABLE),
    Case("LayerNormalization", [None, (6,), (6,)], domain=""),
]
DO_NOT_FIT = [
    Case("MatMulIntegerToFloat", [None, (48,), (), (6,), ()]),  # ONNX Runtime 1.31 reads beyond its end
    Case("MatMulIntegerToFloat", [None, (1, 8, 6), (), (6,), ()]),
    Case("MatMulIntegerToFloat", [None, (8, 6), (), (5,), ()]),
    Case("MatMulIntegerToFloat", [None, (8, 6), (), (6,), (6,)]),
    Case("MatMulIntegerToFloat", [None, (8, 6), (1,), (6,), ()]),
    Case("MatMulIntegerToFloat", [None, (8, 6), (), (6,)]),
    Case("MatMulIntegerToFloat", [None, None, (), (6,), ()]),
    Case("MatMulIntegerToFloat", [(8,), (8, 6), (), (6,), ()]),
    Case("MatMulNBits", [None, (6, 2, 8), (6, 2)], PRODUCT),
    Case("MatMulNBits", [None, (6, 2, 16), (6, 1)], PRODUCT),
    Case("MatMulNBits", [None, (6, 2, 16), (6, 2), (6, 2)], PRODUCT),
    Case("MatMulNBits", [None, (6, 2, 16), (6, 2), (6, 1), (40,)], PRODUCT),
    Case("MatMulNBits", [None, None, (6, 2)], PRODUCT),
    Case("MatMulNBits", [(40,), (6, 2, 16), (6, 2)], PRODUCT),
    Case("MatMulNBits", [None, (6, 0, 16), (6, 0)], {**PRODUCT, "K": 0}),
    Case("MatMulNBits", [None, (6, 2, 16), (6, 2)], {"K": 40, "N": 6, "bits": 4}),
    Case("MatMulNBits", [None, (0, 2, 16), (0, 2)], {**PRODUCT, "N": 0}),
    Case("MatMulNBits", [(), (6, 2, 16), (6, 2)], PRODUCT),
    Case("MatMulNBits", [None, (6, 20, 1), (6, 20)], {**PRODUCT, "block_size": 2}),
    Case("MatMulNBits", [None, (6, 2, 12), (6, 2)], {**PRODUCT, "bits": 3}),
    Case("GatherBlockQuantized", [(9, 40), None, (8, 2)], TABLE),
    Case("GatherBlockQuantized", [(9, 40), None, (9, 1)], TABLE),
    Case("GatherBlockQuantized", [(9, 40), None, (9, 2), (9, 1)], TABLE),
    Case("GatherBlockQuantized", [(9, 40), None, (9, 2), (9, 2), (9, 2)], TABLE),
    Case("GatherBlockQuantized", [(9, 40), None, None], TABLE),
    Case("GatherBlockQuantized", [(360,), None, (9, 2)], TABLE),
    Case("GatherBlockQuantized", [(9, 40), None, (9, 2)], {**TABLE, "gather_axis": 1}),
    Case("GatherBlockQuantized", [(9, 40), None, (9, 2)], {**TABLE, "quantize_axis": 0}),
    Case("GatherBlockQuantized", [(9, 40), (3,), (9, 2)], TABLE),
    Case("GatherBlockQuantized", [(9, 40), None, (9, 40)], {**TABLE, "block_size": 1}),
    Case(
        "GatherBlockQuantized", [(9, 40), None, (9, 2)], {name: TABLE[name] for name in TABLE if name != "block_size"}
    ),
    Case("GatherBlockQuantized", [(9, 40), None, (9, 2)], {**TABLE, "bits": 2}),
    Case("LayerNormalization", [(6,), (6,), (6,)], domain=""),
    Case("LayerNormalization", [None, (6,), (5,)], domain=""),
    Case("LayerNormalization", [None, (6,), (1, 6)], domain=""),
    Case("LayerNormalization", [None, (6,), None], domain=""),
]


@pytest.mark.parametrize("case", FIT, ids=str)
def test_inputs_that_fit_together_are_accepted(with_graph: Rewrite, case: Case) -> None:
    open_bundle(with_graph(case))


@pytest.mark.parametrize("case", DO_NOT_FIT, ids=str)
def test_others_are_refused_with_their_shapes(with_graph: Rewrite, refused: Refused, case: Case) -> None:
    line = refused(with_graph(case))

    said = ", ".join("a value" if shape is None else str(list(shape)) for shape in case.shapes)
    assert f"has a node {case.operator} with inputs that do not fit together: {said}; " in line


def test_shapes_are_kept_by_a_cast_and_an_expansion_from_4_bits(
    with_graph: Rewrite, refused: Refused, tmp_path: Path
) -> None:
    def expanded(channels: int) -> Any:
        def change(model: ModelProto) -> None:
            graph = model.graph
            for name, kind, shape in (
                ("packed", TensorProto.UINT4, (64, 4)),
                ("divisors", TensorProto.FLOAT16, (2, 4)),
                ("zeros", TensorProto.INT8, (2, 4)),
                ("step", TensorProto.FLOAT, ()),
                ("steps", TensorProto.FLOAT, (channels,)),
                ("zero", TensorProto.UINT8, ()),
            ):
                size = helper.tensor_dtype_to_np_dtype(kind).itemsize * int(np.prod(shape, dtype=int))
                content = bytes(size // 2 if kind == TensorProto.UINT4 else size)
                graph.initializer.append(helper.make_tensor(name, kind, shape, content, raw=True))
            half, weights = helper.make_node("Cast", ["packed"], ["half"], to=int(TensorProto.FLOAT16)), "weights"
            expand = helper.make_node("QuantizeLinear", ["half", "divisors", "zeros"], [weights], axis=0, block_size=32)
            inputs = ["numbers", weights, "step", "steps", "zero"]
            product = helper.make_node("MatMulIntegerToFloat", inputs, ["out"], domain="com.microsoft")
            graph.node.extend([half, expand, product])

        return change

    whole = (tmp_path / "counting" / "model.onnx").read_bytes()
    open_bundle(with_graph(expanded(4)))
    (tmp_path / "counting" / "model.onnx").write_bytes(whole)
    assert "fit together: a value, [64, 4], [], [5], []; " in refused(with_graph(expanded(5)))


@pytest.mark.parametrize(
    "node",  # these end ONNX Runtime 1.31
    [
        helper.make_node("LayerNormalization", ["numbers", "one", ""], ["out"]),
        helper.make_node("Max", ["numbers", "", "numbers"], ["out"]),
        helper.make_node("Split", ["numbers"], ["out", ""], axis=1, num_outputs=2),
        helper.make_node("Split", ["numbers"], ["", "out"], axis=1, num_outputs=2),
    ],
)
def test_what_leaves_an_input_or_an_output_out_is_refused(
    with_graph: Rewrite, refused: Refused, node: NodeProto
) -> None:
    line = refused(with_graph(lambda model: model.graph.node.append(node)))

    assert f"has a node {node.op_type} that leaves an input or an output out; " in line


def test_a_constant_that_is_an_input_as_well_is_refused(with_graph: Rewrite, refused: Refused) -> None:
    def change(model: ModelProto) -> None:  # ONNX Runtime would take what it is given instead
        model.graph.input.append(helper.make_tensor_value_info("one", TensorProto.INT64, [1]))

    assert "has an input with the name of a constant; " in refused(with_graph(change))


def field(number: int, content: bytes | int) -> bytes:
    """A field of a message as it is written."""
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(number: int) -> bytes:
    """A number below 2^14."""
    return bytes([number]) if number < 128 else bytes([number & 127 | 128, number >> 7])


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        (
            [field(1, b"K") + field(3, 40) + field(3, 8) + field(20, 2)],
            "with an attribute that holds field 3 2 times; ",
        ),
        ([field(1, b"K") + field(3, 40) + field(20, 2)] * 2, "with the attribute 'K' twice; "),
        ([field(1, b"K") + field(3, 40) + field(20, 2), field(1, b"K") + field(20, 1)], "the attribute 'K' twice; "),
    ],
)
def test_attributes_that_two_parsers_read_differently_are_refused(
    with_file: Rewrite, refused: Refused, attributes: list[bytes], said: str
) -> None:
    node = field(1, b"numbers") + field(2, b"out") + field(4, b"Neg") + b"".join(field(5, a) for a in attributes)

    line = refused(with_file("model.onnx", field(7, field(1, node))))

    assert said in line


def test_a_number_of_another_type_does_not_count(with_file: Rewrite, refused: Refused) -> None:
    numbers = b"".join(
        field(5, field(1, name) + field(3, value) + field(20, 1))
        for name, value in ((b"K", 40), (b"N", 6), (b"bits", 4), (b"block_size", 32))
    )
    sizes = {b"b": (6, 2, 16), b"s": (6, 2)}
    inputs = b"".join(field(1, name) for name in (b"x", *sizes))
    node = inputs + field(2, b"y") + field(4, b"MatMulNBits") + field(7, b"com.microsoft") + numbers
    graph = field(1, node) + field(11, field(1, b"x"))
    model = onnx.ModelProto.FromString(field(7, b""))
    model.graph.ParseFromString(graph)
    for name, shape in sizes.items():
        content = np.zeros(shape, np.uint8).tobytes()
        model.graph.initializer.append(helper.make_tensor(name.decode(), TensorProto.UINT8, shape, content, raw=True))

    line = refused(with_file("model.onnx", model.SerializeToString()))

    assert "has a node MatMulNBits with inputs that do not fit together: a value, [6, 2, 16], [6, 2]; " in line


@pytest.mark.parametrize("number", [LARGEST_ATTRIBUTE + 1, -LARGEST_ATTRIBUTE - 1, (1 << 63) - 1, -(1 << 63)])
@pytest.mark.parametrize("several", [False, True])
def test_whole_numbers_of_attributes_are_bounded(
    with_graph: Rewrite, refused: Refused, number: int, several: bool
) -> None:
    attributes: dict[str, Any] = {"perm": [0, number]} if several else {"batch_dims": number}

    def change(model: ModelProto) -> None:  # batch_dims of 2^63 - 1 ends ONNX Runtime 1.31
        model.graph.node.append(helper.make_node("GatherND", ["numbers", "last"], ["out"], **attributes))

    line = refused(with_graph(change))

    assert f"has a node GatherND with an attribute that holds a number beyond {LARGEST_ATTRIBUTE}; " in line


@pytest.mark.parametrize("number", [LARGEST_ATTRIBUTE, -LARGEST_ATTRIBUTE])
def test_the_largest_and_its_negative_are_accepted(with_graph: Rewrite, number: int) -> None:
    def change(model: ModelProto) -> None:
        model.graph.node.append(helper.make_node("GatherND", ["numbers", "last"], ["out"], batch_dims=number))

    open_bundle(with_graph(change))
