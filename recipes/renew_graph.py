"""Give activations of an older w8a8 bundle one step for all tokens, where today's exporter would, and look up its rare
tokens alone, around the very same weights.

No weight or step of a weight changes, so `model.onnx.data` keeps its bytes; scores move by roundings to 8 bits, and the
head's intercept by what keeps their mean.
Activations are measured on the rows of a run with the same tokenizer and recipe. The gate's figures of the bundle are
kept.

    python recipes/renew_graph.py BUNDLE RUN OUT
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.tape import Tape

from qe_edge.bundle import MODEL_FILE, PAYLOAD, WEIGHTS_FILE, Bundle, file_sha256, open_bundle, write_spec
from qe_edge.scoring.graph import KeyValueShape
from qe_edge_export.calibrate import token_peaks
from qe_edge_export.passes.fixed_steps import step_for
from qe_edge_export.passes.linear import add_constant, operand, replace_value, required_constant, set_constant
from qe_edge_export.passes.simplify import remove_unused, simplify
from qe_edge_export.passes.smoothing import is_normalised
from qe_edge_export.samples import CalibrationRows, load_samples, opened
from qe_edge_export.writer import write_bundle
from qe_edge_train.run import open_run

GATHER = "GatherBlockQuantized"


def fix_steps(model: ir.Model, rows: CalibrationRows) -> int:
    """Replace steps of tokens by one step where tokens are alike, in place; returns how many activations those are."""
    quantising = {
        str(operand(node, 0).name): node
        for node in model.graph
        if node.op_type == "QuantizeLinear" and is_normalised(operand(node, 0))
    }
    fixed = 0
    for name, peaks in token_peaks(model, rows.whole_prompts(), list(quantising)).items():
        step = step_for(peaks)
        print(f"{name}: {len(peaks)} tokens, largest / median {peaks.max() / np.median(peaks):.2f}")
        if step is not None:
            _fix(model.graph, quantising[name], step)
            fixed += 1
    return fixed


def _fix(graph: ir.Graph, quantising: ir.Node, step: float) -> None:
    scale = operand(quantising, 1)
    constant = add_constant(graph, f"{operand(quantising, 0).name}.step", np.array(step, np.float32))
    products = [_product(reader) for reader in quantising.outputs[0].consumers()]
    tape = Tape()
    quantised = tape.op("QuantizeLinear", [operand(quantising, 0), constant, operand(products[0], 4)])
    graph.insert_before(quantising, tape.nodes)
    for reader in list(scale.consumers()):
        if reader.op_type == "Mul":
            other = 1 - [operand(reader, 0), operand(reader, 1)].index(scale)
            ir.convenience.replace_all_uses_with(reader.outputs[0], operand(reader, other))
    for product in products:
        product.replace_input_with(2, constant)
    replace_value(quantising.outputs[0], quantised)


def move_intercept(new: ir.Model, old: ir.Model, rows: CalibrationRows) -> None:
    """Let the mean score of the rows stay what it was."""
    with opened(old, rows.shape) as graph:
        expected = rows.scores(graph).mean()
    with opened(new, rows.shape) as graph:
        moved = expected - rows.scores(graph).mean()
    (score,) = (value for value in new.graph.outputs if value.name == "score")
    squeezed = score.producer()
    assert squeezed is not None
    addition = operand(squeezed, 0).producer()
    assert addition is not None
    assert addition.op_type == "Add"
    intercept = required_constant(operand(addition, 1))
    print(f"intercept {intercept} moved by {moved:.3f}, over {len(rows)} rows")
    set_constant(addition, 1, (intercept + moved).astype(np.float32), "intercept")


def _product(reader: ir.Node) -> ir.Node:
    """Of the last block's queries, one position of a row is taken first."""
    if reader.op_type == "GatherND":
        (reader,) = reader.outputs[0].consumers()
    assert reader.op_type == "MatMulIntegerToFloat"
    return reader


def look_up_rare_tokens_alone(graph: ir.Graph) -> None:
    """The form of `passes/embedding.py`, from one that reads both tables for every token."""
    choices = (node for node in graph if node.op_type == "Where")
    choice = next(node for node in choices if _made_by(node, 1) == _made_by(node, 2) == GATHER)
    (cast,) = choice.outputs[0].consumers()
    assert cast.op_type == "Cast"
    eight, four = (operand(choice, index).producer() for index in (1, 2))
    assert eight is not None
    assert four is not None
    least = operand(eight, 1).producer()
    assert least is not None
    found, last = operand(least, 0), operand(least, 1)
    first = int(np.asarray(_const(last))) + 1
    tape = Tape()

    def number(name: str, value: int) -> ir.Value:
        return add_constant(graph, f"embedding.{name}", np.array(value))

    def read(node: ir.Node, rows: ir.Value) -> ir.Value:
        table, _, steps, *zeros = node.inputs
        inputs = [table, rows, tape.op("Cast", [steps], {"to": ir.DataType.FLOAT}), *zeros]
        return tape.op(GATHER, inputs, attributes=node.attributes, domain="com.microsoft")

    place = tape.op("Cast", [found], {"to": ir.DataType.INT64})
    bound = number("last_of_8_bits", first - 1)
    frequent = read(eight, tape.op("Min", [place, bound]))
    rare = tape.op("Transpose", [tape.op("NonZero", [tape.op("Less", [bound, place])])], {"perm": [1, 0]})
    rest = tape.op("GatherND", [tape.op("Sub", [place, number("first_of_4_bits", first)]), rare])
    result = tape.op("ScatterND", [frequent, rare, read(four, rest)])
    graph.insert_before(cast, tape.nodes)
    replace_value(cast.outputs[0], result)


def _made_by(node: ir.Node, index: int) -> str:
    producer = operand(node, index).producer()
    return "" if producer is None else producer.op_type


def _const(value: ir.Value) -> np.ndarray:
    assert value.const_value is not None
    return value.const_value.numpy()


def main(source: str, run: str, target: str) -> None:
    bundle, opened = open_bundle(Path(source)), open_run(Path(run))
    spec = bundle.spec
    model = ir.load(bundle.model)
    shape = KeyValueShape(spec.blocks_kept, spec.kv_heads, spec.head_dim)
    samples = load_samples(opened, Path(opened.facts.data_folder))
    print(fix_steps(model, CalibrationRows.of(samples.calibration, shape)), "activations with one step")
    look_up_rare_tokens_alone(model.graph)
    simplify(model)
    remove_unused(model)
    move_intercept(model, ir.load(bundle.model), CalibrationRows.of(samples.refit, shape))
    write_bundle(Path(target), model, bundle.tokenizer, spec, force=False)
    print(f"{target}: {read_from_old_file(Path(source), Path(target)).digest}")


def read_from_old_file(old: Path, new: Path) -> Bundle:
    """Let a bundle read every weight where it lies in the file of the old one, which it then holds byte for byte."""
    before, after = (onnx.load(folder / MODEL_FILE, load_external_data=False) for folder in (old, new))
    weights = (new / WEIGHTS_FILE).read_bytes()
    places = {piece: place for place, piece in _pieces(before, (old / WEIGHTS_FILE).read_bytes())}
    for tensor, (_, piece) in zip(_external(after), _pieces(after, weights), strict=True):
        for entry in tensor.external_data:
            if entry.key == "offset":
                entry.value = str(places[piece])
    onnx.save(after, new / MODEL_FILE)
    shutil.copyfile(old / WEIGHTS_FILE, new / WEIGHTS_FILE)
    spec = open_bundle(old).spec
    write_spec(new, replace(spec, files={name: file_sha256(new / name) for name in PAYLOAD}))
    return open_bundle(new)


def _external(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    return [tensor for tensor in model.graph.initializer if tensor.external_data]


def _pieces(model: onnx.ModelProto, weights: bytes) -> Iterator[tuple[int, tuple[int, str]]]:
    """Where each weight begins, and its length and hash."""
    for tensor in _external(model):
        says = {entry.key: entry.value for entry in tensor.external_data}
        start, length = int(says["offset"]), int(says["length"])
        yield start, (length, sha256(weights[start : start + length]).hexdigest())


if __name__ == "__main__":
    main(*sys.argv[1:])
