"""Writes a bundle: complete and verified in a folder beside its place, then moved there in one step."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir

from qe_edge.bundle import (
    MODEL_FILE,
    PAYLOAD,
    SPEC_FILE,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    Bundle,
    BundleSpec,
    file_sha256,
    open_bundle,
    write_spec,
)
from qe_edge.errors import OutputError
from qe_edge_train.output import check_new_folder, new_folder

PRODUCER = "qe-edge"


def check_target(folder: Path, force: bool) -> None:
    """Raise OutputError unless a bundle may be written to `folder`.

    It may when there is nothing or an empty folder, and with `force` when there is a bundle and nothing else, if the
    folder around it allows new files.
    """
    check_new_folder(folder)
    if not folder.exists() and not folder.is_symlink():
        return
    if not folder.is_dir() or folder.is_symlink():
        raise OutputError(f"{folder}: exists and is not a folder; give another -o")
    held = {path.name for path in folder.iterdir()}
    if not held:
        return
    foreign = sorted(held - {SPEC_FILE, *PAYLOAD})
    if SPEC_FILE not in held or foreign:
        found = f"holds {foreign[0]!r}, which is not part of a bundle" if foreign else "is not a complete bundle"
        raise OutputError(f"{folder}: {found}, and is never overwritten; give another -o or empty it yourself")
    if not force:
        raise OutputError(f"{folder}: holds a bundle; give another -o, or --force to replace it")


def write_bundle(folder: Path, model: ir.Model, tokenizer: Path, spec: BundleSpec, force: bool) -> Bundle:
    """Write model, tokenizer and spec (its `files` are filled in here) to `folder` and open the result.

    The model loses all metadata and doc strings, which name places on the exporting machine. Raises OutputError when
    `folder` may not be written; whatever was there stays until the new bundle is complete.
    """
    check_target(folder, force)
    with new_folder(folder, _move) as part:
        save_model(model, part)
        (part / TOKENIZER_FILE).write_text(compact_json(tokenizer), encoding="utf-8")
        write_spec(part, replace(spec, files={name: file_sha256(part / name) for name in PAYLOAD}))
        open_bundle(part)
    return open_bundle(folder)


def adopt_bundle(source: Path, folder: Path, spec: BundleSpec, force: bool) -> Bundle:
    """Move a bundle that lies on the same disk to `folder`, with another spec, whose `files` are those it has.

    Raises OutputError as `write_bundle` does.
    """
    check_target(folder, force)
    try:
        write_spec(source, spec)
        open_bundle(source)
        _move(source, folder)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written: {error.strerror}; give another -o") from None
    return open_bundle(folder)


def save_model(model: ir.Model, folder: Path) -> None:
    """Write `model.onnx` and, beside it, `model.onnx.data` with all tensors of more than 256 bytes.

    The same computation gives the same bytes, whatever the order and the names of its nodes: exporter and rewrites let
    both depend on hashes, some of which differ from run to run. Inputs and outputs keep their names.
    """
    _forget(model)
    _name_in_order(model.graph)
    model.producer_name, model.producer_version = PRODUCER, None
    model.graph.name = PRODUCER
    ir.save(model, folder / MODEL_FILE, external_data=WEIGHTS_FILE)


def _forget(model: ir.Model) -> None:
    """Remove doc strings and metadata everywhere: the exporter leaves stack traces and paths in them."""
    graph = model.graph
    values = [*graph.inputs, *graph.initializers.values(), *(value for node in graph for value in node.outputs)]
    for item in (model, graph, *graph, *values):
        item.doc_string = None
        item.metadata_props.clear()


def compact_json(path: Path) -> str:
    """The same JSON without its white space: of a tokenizer, less than half the bytes."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n"


def _name_in_order(graph: ir.Graph) -> None:
    """Order nodes and initializers by their first use, seen from the outputs, and name them by their place."""
    ordered = _order_of_use(graph)
    graph.remove(list(graph))
    graph.extend(ordered)
    constants: dict[ir.Value, str] = {}
    for place, node in enumerate(ordered):
        node.name = f"{node.op_type}_{place}"
        for index, value in enumerate(node.outputs):
            if not value.is_graph_output():
                value.name = f"{node.name}.{index}"
        for index, used in enumerate(node.inputs):
            if used is not None and used.is_initializer():
                constants.setdefault(used, f"{node.name}.input{index}")
    graph.initializers.clear()
    for value, name in constants.items():
        value.name = name
        graph.register_initializer(value)


def _order_of_use(graph: ir.Graph) -> list[ir.Node]:
    """The nodes that the outputs need, each after those it reads, depth first along outputs and inputs."""
    ordered: dict[ir.Node, None] = {}
    pending = _producers(graph.outputs)
    while pending:
        missing = [node for node in _producers(pending[-1].inputs) if node not in ordered]
        if missing:
            pending += missing
        else:
            ordered.setdefault(pending.pop())
    return list(ordered)


def _producers(values: Sequence[ir.Value | None]) -> list[ir.Node]:
    """The nodes that compute some values, the last one's first: the top of a stack is the first."""
    nodes = [value.producer() for value in reversed(values) if value is not None]
    return [node for node in nodes if node is not None]


def _move(part: Path, folder: Path) -> None:
    """Put a complete folder in its place; an old bundle is deleted only once the new one is there."""
    if not folder.exists():
        part.rename(folder)
        return
    old = part.with_name(part.name + ".old")
    folder.rename(old)
    part.rename(folder)
    shutil.rmtree(old)
