"""Sessions that run one kernel, where this machine has kernels; tiles in software where the processor has none."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from qe_edge.scoring.kernels import library as kernels
from qe_edge.scoring.kernels.packing import Unit, unit_of_int8
from qe_edge.scoring.kernels.patterns import DOMAIN
from qe_edge.scoring.kernels.source.hatch_build import FLAGS, SOURCE
from qe_edge.scoring.machine import CPU_FACTS

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
    if kernels.library() is None:
        pytest.skip("no kernels on this machine: no C++ compiler when qe-edge was installed, or no AVX-512")


@pytest.fixture(scope="session")
def with_software_tiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same kernels with a tile unit written in C++."""
    if "avx512_bf16" not in CPU_FACTS.read_text(encoding="utf-8"):
        pytest.skip("no AVX512-BF16 on this machine: what stands for tiles uses it")
    compiled = tmp_path_factory.mktemp("kernels") / "tiles_in_software.so"
    unit = Path(__file__).with_name("tiles_in_software.h")
    command = [
        *os.environ.get("CXX", "c++").split(),
        *FLAGS,
        "-include",
        str(unit),
        str(SOURCE / "library.cpp"),
        "-o",
        str(compiled),
    ]
    subprocess.run(command, check=True)
    return compiled


@pytest.fixture
def tiles(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """The library that sessions load, with tiles: the processor's, or in software."""
    found = kernels.library()
    assert found is not None
    if unit_of_int8(found) is Unit.TILES:
        return found
    compiled: Path = request.getfixturevalue("with_software_tiles")
    monkeypatch.setattr(kernels, "LIBRARY", compiled)
    return compiled


@pytest.fixture
def dots(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The library that sessions load, without tiles."""
    monkeypatch.setenv(kernels.SWITCH, "vectors")
    found = kernels.library()
    assert found is not None
    if unit_of_int8(found) is Unit.NONE:
        pytest.skip("no AVX512-VNNI on this machine")
    return found


@pytest.fixture(params=[Unit.DOTS, Unit.TILES], ids=["dots", "tiles"])
def products(request: pytest.FixtureRequest) -> Path:
    """The library that sessions load, on each unit that multiplies int8."""
    library: Path = request.getfixturevalue(request.param.name.lower())
    return library


@pytest.fixture(params=Unit, ids=["float32", "dots", "tiles"])
def unit(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Unit:
    """What of a processor the kernels use."""
    one: Unit = request.param
    if one is Unit.NONE:
        monkeypatch.setenv(kernels.SWITCH, "float32")
    else:
        request.getfixturevalue(one.name.lower())
    return one


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
        options.register_custom_ops_library(str(kernels.library()))
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return list(session.run(None, dict(zip(inputs, arrays, strict=True))))

    return run


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(7)
