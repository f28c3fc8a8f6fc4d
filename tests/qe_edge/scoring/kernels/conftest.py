"""Sessions that run one kernel on each unit; in software where the processor does not have one."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from qe_edge.scoring.kernels import library as kernels
from qe_edge.scoring.kernels.library import AVX2, AVX512
from qe_edge.scoring.kernels.packing import Unit, unit_of_int8
from qe_edge.scoring.kernels.patterns import DOMAIN
from qe_edge.scoring.kernels.source.hatch_build import FLAGS, LIBRARIES, SOURCE
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
FLOOR, LEVELS, ZERO = np.array(1e-6, np.float32), np.array(127, np.float32), np.array(128, np.uint8)
OUTPUTS = {
    "AddNormQuantize": "fu",
    "SwigluQuantize": "uf",
    "AttendQuantize": "ufff",
    "Linear": "f",
    "LinearAddNormQuantize": "fu",
    "GatedQuantize": "uf",
}


@pytest.fixture(autouse=True)
def _has_kernels() -> None:
    if kernels.library() is None:
        pytest.skip("no kernels on this machine: no C++ compiler when qe-edge was installed, or no AVX2")


@pytest.fixture(scope="session")
def in_software(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folder of a library of the same kernels, with a unit written in C++ that the processor need not have."""
    units = {AVX512: "tiles_in_software.h", AVX2: "dots_in_software.h"}

    @cache
    def compile_library(name: str) -> Path:
        folder = tmp_path_factory.mktemp("kernels")
        compiler = os.environ.get("CXX", "c++").split()
        unit = Path(__file__).with_name(units[name])
        command = [*compiler, *FLAGS, *LIBRARIES[name], "-include", str(unit), str(SOURCE / "library.cpp")]
        subprocess.run([*command, "-o", str(folder / name)], check=True)
        return folder

    return compile_library


def processor_has(instructions: str) -> bool:
    return instructions in CPU_FACTS.read_text(encoding="utf-8").split()


NAMES = {
    "float32": (None, Unit.NONE),
    "pairs": (AVX2, Unit.PAIRS),
    "dots of AVX2": (AVX2, Unit.DOTS),
    "dots": (AVX512, Unit.DOTS),
    "tiles": (AVX512, Unit.TILES),
}
"""what kernels can run on: the library, and its unit"""


def choose(name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Unit:
    """Has sessions run on this unit: the processor's own, or where it has none, one in software."""
    wanted, unit = NAMES[name]
    if name != "tiles":
        monkeypatch.setenv(kernels.SWITCH, {"dots of AVX2": "avx2", "dots": "vectors"}.get(name, name))
    found = kernels.library()
    if wanted is not None and (found is None or found.name != wanted):
        pytest.skip("no AVX-512 on this machine" if wanted == AVX512 else "no kernels for AVX2")
    assert found is not None
    if unit_of_int8(found) is not unit:
        if wanted == AVX512 and not processor_has("avx512_vnni" if unit is Unit.DOTS else "avx512_bf16"):
            pytest.skip("no AVX512-VNNI on this machine, or no AVX512-BF16, which stands for tiles")
        if shutil.which(os.environ.get("CXX", "c++").split()[0]) is None:
            pytest.skip("no C++ compiler for a unit in software")
        monkeypatch.setattr(kernels, "FOLDER", request.getfixturevalue("in_software")(wanted))
        found = kernels.library()
        assert found is not None
        assert unit_of_int8(found) is unit
    return unit


@pytest.fixture(params=NAMES)
def unit(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Unit:
    """What of a processor the kernels use."""
    return choose(request.param, request, monkeypatch)


@pytest.fixture(params=[name for name, (_, unit) in NAMES.items() if unit is not Unit.NONE])
def products(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The library that sessions load, on each unit that multiplies int8."""
    choose(request.param, request, monkeypatch)
    found = kernels.library()
    assert found is not None
    return found


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


def floats(random: np.random.Generator, *shape: int) -> Array:
    return random.normal(size=shape).astype(np.float32)


def token_steps(values: Array) -> tuple[Array, Array]:
    """The integers and the step of each token."""
    scale = np.maximum(np.abs(values).max(-1, keepdims=True), FLOOR) / LEVELS
    return np.clip(np.rint(values / scale) + 128, 0, 255), scale


def assert_quantised(found: Array, exact: Array) -> None:
    """The same integers, but for a value just between two."""
    difference = np.abs(found.astype(int) - exact.astype(int))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.002
