"""Sessions that run one kernel, where this machine has kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from qe_edge.scoring.kernels.library import library
from qe_edge.scoring.kernels.rewrite import DOMAIN

Array = NDArray[Any]
Run = Callable[..., list[Array]]
TYPES = {
    "float32": TensorProto.FLOAT,
    "uint8": TensorProto.UINT8,
    "int8": TensorProto.INT8,
    "int32": TensorProto.INT32,
    "bool": TensorProto.BOOL,
}
OUTPUTS = {
    "AddNormQuantize": "fu",
    "SwigluQuantize": "uf",
    "AttendQuantize": "ufff",
    "Linear": "f",
    "GatedQuantize": "uf",
}


@pytest.fixture(autouse=True)
def _has_kernels() -> None:
    if library() is None:
        pytest.skip("no kernels on this machine: no C++ compiler when qe-edge was installed, or no AVX-512")


@pytest.fixture
def kernel() -> Run:
    """(operator, arrays, attributes) -> what the kernel makes of them."""

    def run(operator: str, *given: Array | np.generic, **attributes: Any) -> list[Array]:
        arrays = [np.asarray(values) for values in given]
        inputs = [f"in{i}" for i in range(len(arrays))]
        outputs = [f"out{i}" for i in range(len(OUTPUTS[operator]))]
        kinds = [TensorProto.FLOAT if kind == "f" else TensorProto.UINT8 for kind in OUTPUTS[operator]]
        node = helper.make_node(operator, inputs, outputs, domain=DOMAIN, **attributes)
        graph = helper.make_graph(
            [node],
            "one kernel",
            [helper.make_tensor_value_info(n, TYPES[str(a.dtype)], None) for n, a in zip(inputs, arrays, strict=True)],
            [helper.make_tensor_value_info(n, kind, None) for n, kind in zip(outputs, kinds, strict=True)],
        )
        opsets = [helper.make_opsetid("", 23), helper.make_opsetid(DOMAIN, 1)]
        model: onnx.ModelProto = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.register_custom_ops_library(str(library()))
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return list(session.run(None, dict(zip(inputs, arrays, strict=True))))

    return run


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(7)
