"""The graph runs on the device that was asked for or not at all, and only with the inputs that the bundle records."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from qe_edge import Scorer
from qe_edge.bundle import open_bundle, write_spec
from qe_edge.errors import BundleError, DeviceError
from qe_edge.scoring.graph import Graph, KeyValueShape, open_graph, pad, pick_device

SHAPE = KeyValueShape(blocks=1, kv_heads=1, head_dim=1)
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


@pytest.fixture
def gpu_build(monkeypatch: pytest.MonkeyPatch) -> None:
    """An ONNX Runtime that offers CUDA."""
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA, CPU])


def raises(session: type[ort.InferenceSession], model: str, options: Any, **_: Any) -> ort.InferenceSession:
    raise RuntimeError("CUDA failure 100: no CUDA-capable device is detected\nat cuda_call.cc:141")


def leaves_out_cuda(session: type[ort.InferenceSession], model: str, options: Any, **_: Any) -> ort.InferenceSession:
    return session(model, options, providers=[CPU])


@pytest.fixture(params=[raises, leaves_out_cuda])
def no_usable_gpu(request: pytest.FixtureRequest, gpu_build: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways in which the GPU build answers on a machine without a usable GPU, its own fallback switched off."""
    real = ort.InferenceSession
    on_cuda: Callable[..., ort.InferenceSession] = request.param

    def session(model: str, options: Any, providers: list[Any], enable_fallback: int) -> ort.InferenceSession:
        assert enable_fallback == 0
        if providers != [CPU]:
            ((provider, _),) = providers
            assert provider == CUDA
            return on_cuda(real, model, options)
        return real(model, options, providers=providers)

    monkeypatch.setattr(ort, "InferenceSession", session)


def test_an_empty_prefix_leaves_no_keys_and_values(counting_bundle: Path) -> None:
    graph = Graph(open_bundle(counting_bundle).model, SHAPE)
    assert [past.shape() for past in graph.prefix([]).values()] == [[1, 1, 0, 1]] * 2
    assert [past.shape() for past in graph.prefix([3, 4]).values()] == [[1, 1, 2, 1]] * 2


@pytest.mark.usefixtures("gpu_build")
@pytest.mark.parametrize(
    ("requested", "precision", "device"),
    [
        ("auto", "fp32", "cuda"),
        ("auto", "w8a8", "cpu"),
        ("cuda", "fp32", "cuda"),
        ("cpu", "w8a8", "cpu"),
        ("auto", "w4a8", "cpu"),
    ],
)
def test_auto_takes_an_offered_gpu_for_a_precision_that_has_its_operators_there(
    requested: str, precision: str, device: str
) -> None:
    assert pick_device(requested, precision) == device


@pytest.mark.usefixtures("gpu_build")
def test_w8a8_is_refused_on_cuda_instead_of_run_on_the_cpu_in_silence() -> None:
    with pytest.raises(DeviceError) as caught:
        pick_device("cuda", "w8a8")
    assert str(caught.value) == (
        "--device cuda: w8a8 bundles run on the CPU; use --device cpu, or export with --precision fp32"
    )


@pytest.mark.parametrize("precision", ["fp32", "w8a8"])
def test_cuda_that_is_not_offered_is_refused_for_every_precision(
    precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CPU])
    assert pick_device("auto", precision) == "cpu"
    with pytest.raises(DeviceError, match=r"^--device cuda: this ONNX Runtime offers CPUExecutionProvider; install"):
        pick_device("cuda", precision)


@pytest.mark.usefixtures("no_usable_gpu")
def test_auto_without_a_usable_gpu_runs_and_says_cpu(counting_bundle: Path, capfd: pytest.CaptureFixture[str]) -> None:
    graph = open_graph(counting_bundle / "model.onnx", SHAPE, "fp32", "auto")

    assert graph.device == "cpu"
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("no_usable_gpu")
def test_cuda_without_a_usable_gpu_fails_in_one_line(counting_bundle: Path) -> None:
    with pytest.raises(DeviceError) as caught:
        open_graph(counting_bundle / "model.onnx", SHAPE, "fp32", "cuda")
    line = str(caught.value)
    assert line.startswith("--device cuda: could not be initialised (")
    assert line.endswith("); use --device cpu")
    assert "\n" not in line


@pytest.mark.usefixtures("no_usable_gpu")
def test_the_signature_of_an_fp32_bundle_names_the_device_that_ran_it(counting_bundle: Path) -> None:
    change_spec(counting_bundle, precision="fp32")
    assert Scorer.load(counting_bundle, threads=1).signature.endswith(" | fp32 | cpu")


def change_spec(folder: Path, **changes: Any) -> None:
    write_spec(folder, replace(open_bundle(folder).spec, **changes))


@pytest.mark.parametrize(
    "change",
    [{"blocks_kept": 2}, {"kv_heads": 3}, {"head_dim": 64}],
    ids=lambda change: next(iter(change)),
)
def test_a_bundle_that_records_another_shape_than_its_graph_is_refused(
    counting_bundle: Path, change: dict[str, int]
) -> None:
    change_spec(counting_bundle, **change)
    with pytest.raises(BundleError) as caught:
        Scorer.load(counting_bundle, device="cpu", threads=1)
    line = str(caught.value)
    assert line.startswith(f"{counting_bundle}/model.onnx: the inputs are not those of ")
    assert line.endswith("which the bundle records; export the bundle again or fetch a fresh copy")
    assert "\n" not in line


def test_a_file_that_is_no_graph_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(BundleError, match=r"model\.onnx: ONNX Runtime cannot load the graph \(.*\); export") as caught:
        Graph(tmp_path / "model.onnx", SHAPE)
    assert "\n" not in str(caught.value)


def test_a_graph_that_loads_and_fails_is_refused_in_one_line(counting_bundle: Path) -> None:
    graph = Graph(counting_bundle / "model.onnx", SHAPE)
    wrong = ort.OrtValue.ortvalue_from_numpy(np.zeros((1, 1, 1, 0), np.float32))
    with pytest.raises(BundleError) as caught:
        graph.run(dict.fromkeys(SHAPE.inputs, wrong), *pad([[1, 2]]))
    line = str(caught.value)
    assert line.startswith(f"{counting_bundle}/model.onnx: the graph failed (")
    assert line.endswith("); export the bundle again or fetch a fresh copy")
    assert "\n" not in line


def ending_in(bundle: Path, operator: str, *constants: Any, kind: int = TensorProto.FLOAT, **attributes: Any) -> Path:
    """The bundle's graph with one more operator before its scores, which are of type `kind` then."""
    path = bundle / "model.onnx"
    model = onnx.load(path)
    graph = model.graph
    next(node for node in graph.node if node.output[0] == "score").output[0] = "before"
    names = [f"constant_{number}" for number in range(len(constants))]
    graph.initializer.extend(map(numpy_helper.from_array, map(np.array, constants), names))
    graph.node.append(helper.make_node(operator, ["before", *names], ["score"], **attributes))
    graph.output[0].CopyFrom(helper.make_tensor_value_info("score", kind, None))
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    ("operator", "constants", "shape"),
    [("Unsqueeze", ([1],), [2, 1]), ("ReduceSum", ([0],), [1]), ("Gather", (0,), []), ("Tile", ([2],), [4])],
)
def test_scores_of_another_shape_than_one_a_row_are_refused(
    counting_bundle: Path, operator: str, constants: tuple[Any, ...], shape: list[int]
) -> None:
    graph = Graph(ending_in(counting_bundle, operator, *constants), SHAPE)
    with pytest.raises(BundleError) as caught:
        graph.scores(graph.nothing, [[1, 2], [3]])
    assert f"model.onnx: the graph gave scores of shape {shape} for 2 rows; export" in str(caught.value)


@pytest.mark.parametrize(("kind", "said"), [(TensorProto.BFLOAT16, "bfloat16"), (TensorProto.STRING, "string")])
def test_scores_of_another_type_are_refused_when_the_graph_is_loaded(
    counting_bundle: Path, kind: int, said: str
) -> None:
    path = ending_in(counting_bundle, "Cast", kind=kind, to=kind)
    with pytest.raises(BundleError, match=rf"its output `score` is a tensor\({said}\), not float32; export"):
        Graph(path, SHAPE)


@pytest.mark.parametrize(
    "message",
    [
        "bfc_arena.cc:376 Failed to allocate memory for requested buffer of size 77",
        "bfc_arena.cc:359 Available memory of 0 is smaller than requested bytes of 2048",
        "CUDA failure 2: out of memory",
    ],
)
def test_a_batch_without_memory_is_a_memory_error(message: str, counting_bundle: Path) -> None:
    graph = Graph(counting_bundle / "model.onnx", SHAPE)

    class Full:
        def io_binding(self) -> None:
            raise RuntimeError(message)

    graph._session = Full()
    with pytest.raises(MemoryError, match=re.escape(message)):
        graph.scores(graph.nothing, [[1, 2]])


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_path_that_onnx_runtime_cannot_open_is_told_as_such(counting_bundle: Path) -> None:
    odd = counting_bundle.rename(counting_bundle.with_name("bun\udcff"))
    open_bundle(odd)
    with pytest.raises(BundleError, match=r"/model\.onnx: ONNX Runtime opens no path that is not UTF-8; rename the"):
        Scorer.load(odd, device="cpu", threads=1)
