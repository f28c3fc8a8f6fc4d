"""A constant is as large as it says and lies where it belongs, or the bundle is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import ModelProto, TensorProto, helper

from qe_edge.bundle import open_bundle
from tests.qe_edge.verification.conftest import Refused, Rewrite

WEIGHTS = "model.onnx.data"
SIZE = 100
"""bytes of the weights file"""


@pytest.fixture
def with_weights(counting_bundle: Path, with_graph: Rewrite) -> Rewrite:
    """(shape, external data of each tensor) -> a bundle with float32 tensors in a weights file of 100 bytes."""

    def write(dims: list[int], *places: list[tuple[str, str]]) -> Path:
        (counting_bundle / WEIGHTS).write_bytes(bytes(SIZE))

        def add(model: ModelProto) -> None:
            for number, place in enumerate(places):
                tensor = model.graph.initializer.add(name=f"w{number}", data_type=1, dims=dims, data_location=1)
                for key, value in place:
                    tensor.external_data.add(key=key, value=value)

        return with_graph(add)

    return write


def place(location: str = WEIGHTS, offset: object = 0, length: object = 80) -> list[tuple[str, str]]:
    return [("location", location), ("offset", str(offset)), ("length", str(length))]


def test_tensors_beside_each_other_are_accepted(with_weights: Rewrite) -> None:
    open_bundle(with_weights([3, 4], place(length=48), place(offset=52, length=48)))


@pytest.mark.parametrize(
    ("dims", "where", "expected"),
    [
        ([20], place("/etc/passwd"), "lies in '/etc/passwd' instead of model.onnx.data"),
        ([20], place("../model.onnx.data"), "lies in '../model.onnx.data' instead of model.onnx.data"),
        ([20], place("./model.onnx.data"), "lies in './model.onnx.data' instead of"),
        ([20], place("tokenizer.json"), "lies in 'tokenizer.json' instead of"),
        ([20], place("*/_ORT_MEM_ADDR_/*"), "lies in '*/_ORT_MEM_ADDR_/*' instead of"),
        ([20], place(""), "lies in '' instead of"),
        ([20], place(offset=24), "ends at byte 104 of model.onnx.data, which has 100"),
        ([20], place(offset=2**63), "ends at byte 9223372036854775888 of model.onnx.data"),
        ([20], place(offset=-1), "has the offset or length '-1', which is no whole number"),
        ([20], place(offset="9" * 5000), "which is no whole number"),
        ([20], place(offset="\u0665"), "which is no whole number"),
        ([20], place(length=79), "has 79 bytes in model.onnx.data instead of 80"),
        ([21], place(), "has 80 bytes in model.onnx.data instead of 84"),
        ([2**40, 2**40], place(), "has 80 bytes in model.onnx.data instead of 4835703278458516698824704"),
        ([-20], place(), "has the shape [18446744073709551596], more than 8 dimensions or negative ones"),
        ([1] * 9, place(length=4), "more than 8 dimensions"),
        ([20], place()[:2], "does not say where its data lies with location, offset and length"),
        ([20], [*place(), ("checksum", "0")], "does not say where its data lies with"),
        ([20], [*place(), ("location", "/etc/passwd")], "does not say where its data lies with"),
    ],
)
def test_a_place_that_is_not_the_tensors_own_is_refused(
    with_weights: Rewrite, refused: Refused, dims: list[int], where: list[tuple[str, str]], expected: str
) -> None:
    line = refused(with_weights(dims, where))

    assert line.startswith("model.onnx: tensor 'w0' ")
    assert expected in line


def test_weights_that_are_read_more_often_than_they_are_there_are_refused(
    with_weights: Rewrite, refused: Refused
) -> None:
    folder = with_weights([20], *([place()] * 1000))
    assert "model.onnx: reads 80000 bytes from model.onnx.data, which has 100;" in refused(folder)


@pytest.mark.parametrize(
    ("tensor", "expected"),
    [
        ({"data_type": 1, "dims": [4], "raw_data": bytes(15)}, "of shape [4] has 15 bytes instead of 16"),
        ({"data_type": 1, "dims": [2**62, 4], "raw_data": b""}, "has 0 bytes instead of 73786976294838206464"),
        ({"data_type": 1, "dims": [2**31] * 8, "raw_data": b""}, "bytes instead of"),
        ({"data_type": 21, "dims": [3], "raw_data": bytes(3)}, "of shape [3] has 3 bytes instead of 2"),
        ({"data_type": 0, "dims": []}, "has data type 0, which no bundle uses"),
        ({"data_type": 8, "dims": [1], "raw_data": b"a"}, "has data type 8, which no bundle uses"),
        ({"data_type": 99, "dims": [1], "raw_data": b"a"}, "has data type 99, which no bundle uses"),
        ({"data_type": 1, "dims": [1], "float_data": [1.0]}, "holds float data"),
        ({"data_type": 8, "dims": [1], "string_data": [b"a"]}, "holds texts"),
        ({"data_type": 1, "dims": [1], "raw_data": bytes(4), "data_location": 1}, "both in the graph and outside"),
    ],
)
def test_a_tensor_of_another_size_than_it_says_is_refused(
    with_graph: Rewrite, refused: Refused, tensor: dict[str, Any], expected: str
) -> None:
    def add(model: ModelProto) -> None:
        model.graph.initializer.append(TensorProto(name="w", **tensor))

    assert expected in refused(with_graph(add))


def test_a_place_of_a_tensor_that_says_it_is_in_the_graph_is_refused(with_graph: Rewrite, refused: Refused) -> None:
    def add(model: ModelProto) -> None:
        tensor = helper.make_tensor("w", onnx.TensorProto.FLOAT, [1], bytes(4), raw=True)
        tensor.external_data.add(key="location", value="/etc/passwd")
        model.graph.initializer.append(tensor)

    assert "tensor 'w' names a file, but not as its place" in refused(with_graph(add))
