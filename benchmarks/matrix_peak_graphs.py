"""Writes the graphs with which `qe-edge bench` measures a machine's matrix peak: one product with a constant weight.

    python benchmarks/matrix_peak_graphs.py FOLDER

The weight is an Expand of one number, which ONNX Runtime folds when it loads the graph: the files have less than 200
bytes, and the product runs with a weight that was packed beforehand, as the products of a bundle do.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from qe_edge.bench.peak import DEPTH, ROWS, WIDTH


def int8_graph() -> onnx.ModelProto:
    """MatMulInteger of x uint8 [ROWS, DEPTH] around 128 with a weight int8 [DEPTH, WIDTH]."""
    zero = numpy_helper.from_array(np.array(128, np.uint8), "zero")
    return _model("MatMulInteger", np.array([[3]], np.int8), (TensorProto.UINT8, TensorProto.INT32), [zero])


def float32_graph() -> onnx.ModelProto:
    """MatMul of x float32 [ROWS, DEPTH] with a weight float32 [DEPTH, WIDTH]."""
    return _model("MatMul", np.array([[0.5]], np.float32), (TensorProto.FLOAT, TensorProto.FLOAT), [])


def _model(
    operator: str, number: np.ndarray, types: tuple[int, int], constants: list[onnx.TensorProto]
) -> onnx.ModelProto:
    shape = numpy_helper.from_array(np.array([DEPTH, WIDTH], np.int64), "shape")
    nodes = [
        helper.make_node("Expand", ["number", "shape"], ["weight"]),
        helper.make_node(operator, ["x", "weight", *(constant.name for constant in constants)], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", types[0], [ROWS, DEPTH])
    y = helper.make_tensor_value_info("y", types[1], [ROWS, WIDTH])
    graph = helper.make_graph(nodes, "peak", [x], [y], [numpy_helper.from_array(number, "number"), shape, *constants])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    for name, model in (("int8", int8_graph()), ("float32", float32_graph())):
        (folder / f"matmul_{name}.onnx").write_bytes(model.SerializeToString())


if __name__ == "__main__":
    main()
