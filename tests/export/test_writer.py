"""Writing a bundle: complete or not at all, never over anything but a bundle, and without traces of the machine."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from qe_edge.bundle import FORMAT_VERSION, Bundle, BundleSpec, open_bundle
from qe_edge.errors import OutputError
from qe_edge_export.writer import check_target, save_model, write_bundle

SPEC = BundleSpec(
    format_version=FORMAT_VERSION,
    name="tiny",
    base_model="base",
    base_family="llama",
    licence="CC0-1.0",
    data=["tables"],
    strategy="single",
    taps=[2],
    blocks_kept=2,
    blocks_total=3,
    kv_heads=2,
    head_dim=8,
    prompt="{src} {mt}",
    bos=None,
    token_limit=64,
    language_pairs=["et-en"],
    score_scale="DA 0-100",
    precision="fp32",
    gate={},
    metrics={},
    created_with={},
    files={},
)


def tiny_model(value: float = 1.0) -> ir.Model:
    """y = x W with W [10, 10] filled with `value`, and traces of the exporter on model, graph, node and value."""
    trace = {"pkg.torch.onnx.stack_trace": 'File "/home/someone/tapped.py", line 3'}
    weight = np.full((10, 10), value, np.float32)
    w = ir.Value(
        name="w",
        shape=ir.Shape(weight.shape),
        type=ir.TensorType(ir.DataType.FLOAT),
        const_value=ir.tensor(weight, name="w"),
        metadata_props=dict(trace),
    )
    x = ir.Value(name="x", shape=ir.Shape(["batch", 10]), type=ir.TensorType(ir.DataType.FLOAT))
    y = ir.Value(name="y", shape=ir.Shape(["batch", 10]), type=ir.TensorType(ir.DataType.FLOAT))
    node = ir.node("MatMul", [x, w], outputs=[y], metadata_props=dict(trace), doc_string="/home/someone")
    graph = ir.Graph([x], [y], nodes=[node], initializers=[w], opset_imports={"": 23}, name="main")
    graph.doc_string, graph.metadata_props["where"] = "/home/someone", "/home/someone"
    model = ir.Model(graph, ir_version=10, producer_name="pytorch", doc_string="/home/someone")
    model.metadata_props["where"] = "/home/someone"
    return model


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    path = tmp_path / "source-tokenizer.json"
    path.write_text('{"model": {"type": "WordLevel", "vocab": {"?": 0}}}', encoding="utf-8")
    return path


def write(folder: Path, tokenizer: Path, value: float = 1.0, force: bool = False) -> Bundle:
    return write_bundle(folder, tiny_model(value), tokenizer, SPEC, force)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_bundle_holds_its_four_files_and_opens(tmp_path: Path, tokenizer: Path) -> None:
    bundle = write(tmp_path / "new" / "bundle", tokenizer)

    assert bundle == open_bundle(tmp_path / "new" / "bundle")
    assert sorted(content(bundle.folder)) == ["bundle.json", "model.onnx", "model.onnx.data", "tokenizer.json"]
    assert sorted(bundle.spec.files) == ["model.onnx", "model.onnx.data", "tokenizer.json"]
    assert [path.name for path in bundle.folder.parent.iterdir()] == ["bundle"]


def test_big_tensors_lie_in_the_one_weights_file(tmp_path: Path, tokenizer: Path) -> None:
    bundle = write(tmp_path / "bundle", tokenizer, value=7)

    (tensor,) = onnx.load(bundle.model, load_external_data=False).graph.initializer
    assert {entry.key: entry.value for entry in tensor.external_data}["location"] == "model.onnx.data"
    weights = np.frombuffer((bundle.folder / "model.onnx.data").read_bytes(), np.float32)
    assert weights.tolist() == [7.0] * 100


def test_no_trace_of_the_exporting_machine_is_left(tmp_path: Path) -> None:
    save_model(tiny_model(), tmp_path)

    raw = (tmp_path / "model.onnx").read_bytes()
    assert b"someone" not in raw
    assert b"stack_trace" not in raw
    assert b"pytorch" not in raw


def test_the_same_graph_gives_the_same_bytes(tmp_path: Path, tokenizer: Path) -> None:
    assert content(write(tmp_path / "a", tokenizer).folder) == content(write(tmp_path / "b", tokenizer).folder)


def two_products(names: tuple[str, str], swapped: bool) -> ir.Model:
    """y = x A - x B, with A [10, 10] of ones and B of twos; the products stand in either order."""
    x = ir.Value(name="x", shape=ir.Shape(["batch", 10]), type=ir.TensorType(ir.DataType.FLOAT))
    weights, products = [], []
    for number, name in enumerate(names, start=1):
        array = np.full((10, 10), number, np.float32)
        kind = ir.TensorType(ir.DataType.FLOAT)
        weights.append(
            ir.Value(name=name, shape=ir.Shape([10, 10]), type=kind, const_value=ir.tensor(array, name=name))
        )
        products.append(ir.node("MatMul", [x, weights[-1]], outputs=[ir.Value(name=f"product of {name}")]))
    y = ir.Value(name="y", shape=ir.Shape(["batch", 10]), type=ir.TensorType(ir.DataType.FLOAT))
    difference = ir.node("Sub", [product.outputs[0] for product in products], outputs=[y])
    if swapped:
        products.reverse()
        weights.reverse()
    nodes = [*products, difference]
    graph = ir.Graph([x], [y], nodes=nodes, initializers=weights, opset_imports={"": 23}, name="main")
    return ir.Model(graph, ir_version=10)


def test_order_and_names_of_nodes_do_not_reach_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()

    save_model(two_products(("p", "q"), swapped=False), tmp_path / "a")
    save_model(two_products(("val_7", "val_3"), swapped=True), tmp_path / "b")

    assert content(tmp_path / "a") == content(tmp_path / "b")
    graph = onnx.load(tmp_path / "a" / "model.onnx").graph
    assert [(node.name, list(node.input)) for node in graph.node] == [
        ("MatMul_0", ["x", "MatMul_0.input1"]),
        ("MatMul_1", ["x", "MatMul_1.input1"]),
        ("Sub_2", ["MatMul_0.0", "MatMul_1.0"]),
    ]
    assert [onnx.numpy_helper.to_array(weight)[0, 0] for weight in graph.initializer] == [1, 2]
    assert graph.output[0].name == "y"


def test_a_bundle_is_replaced_only_by_force(tmp_path: Path, tokenizer: Path) -> None:
    folder = tmp_path / "bundle"
    first = write(folder, tokenizer)
    before = content(folder)

    with pytest.raises(OutputError, match=r"bundle: holds a bundle; give another -o, or --force to replace it"):
        write(folder, tokenizer, value=2)
    assert content(folder) == before

    assert write(folder, tokenizer, value=2, force=True).digest != first.digest
    assert {path.name for path in tmp_path.iterdir()} == {"bundle", tokenizer.name}


def test_an_empty_folder_is_filled(tmp_path: Path, tokenizer: Path) -> None:
    (tmp_path / "bundle").mkdir()

    assert write(tmp_path / "bundle", tokenizer).spec.name == "tiny"


@pytest.mark.parametrize("names", [["notes.txt"], ["bundle.json", "model.onnx", "notes.txt"]])
def test_a_folder_with_anything_else_is_never_replaced(tmp_path: Path, tokenizer: Path, names: list[str]) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in names:
        (folder / name).write_text("precious", encoding="utf-8")
    before = content(folder)

    with pytest.raises(
        OutputError, match=r"holds 'notes\.txt', which is not part of a bundle, and is never overwritten"
    ):
        write(folder, tokenizer, force=True)

    assert content(folder) == before


def test_parts_of_a_bundle_are_not_taken_for_one(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"someone else's")

    with pytest.raises(OutputError, match="is not a complete bundle, and is never overwritten"):
        check_target(tmp_path, force=True)


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")

    with pytest.raises(OutputError, match=r"file: exists and is not a folder; give another -o"):
        check_target(tmp_path / "file", force=True)


def test_a_link_to_a_bundle_is_not_followed(tmp_path: Path, tokenizer: Path) -> None:
    real = write(tmp_path / "bundle", tokenizer).folder
    (tmp_path / "link").symlink_to(real)

    with pytest.raises(OutputError, match="exists and is not a folder"):
        check_target(tmp_path / "link", force=True)


def test_a_failure_leaves_the_old_bundle_and_no_rubbish(tmp_path: Path, tokenizer: Path) -> None:
    folder = tmp_path / "bundle"
    write(folder, tokenizer)
    before = content(folder)

    with pytest.raises(OutputError, match="cannot be written: No such file"):
        write(folder, tmp_path / "missing.json", value=2, force=True)

    assert content(folder) == before
    assert {path.name for path in tmp_path.iterdir()} == {"bundle", tokenizer.name}


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path, tokenizer: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")

    with pytest.raises(OutputError, match=r"bundle: cannot be written: .* give another -o"):
        write(tmp_path / "file" / "bundle", tokenizer)


@pytest.mark.parametrize("force", [False, True])
def test_a_place_that_cannot_be_written_is_found_beforehand(
    tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch, force: bool
) -> None:
    if force:
        write(tmp_path / "bundle", tokenizer)
    granted = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path and granted(path, mode))

    with pytest.raises(OutputError, match=r"bundle: cannot be written: .* allows no new files; give another -o"):
        check_target(tmp_path / "bundle", force)
