"""What must hold for a graph of a stranger: it is refused, or it runs or fails; the process that scores goes on.

Exports of a tiny random decoder, in every precision, are changed in a few places: shapes and types of constants, what
nodes read, their attributes and operators. What passes the checks of `qe_edge.verification` is run, kernels included.
"""

from __future__ import annotations

import math
import random
import shutil
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
import onnx_ir as ir
import torch
from onnx import ModelProto, NodeProto, TensorProto, helper
from transformers import AutoModel, LlamaConfig

from qe_edge.bundle import MODEL_FILE, WEIGHTS_FILE
from qe_edge.errors import QeEdgeError
from qe_edge.scoring.graph import Graph, KeyValueShape
from qe_edge.verification.model import check_model
from qe_edge.verification.onnx_fields import EXTERNAL
from qe_edge.verification.operators import CONTRIB, CONTRIB_OPERATORS, OPERATORS
from qe_edge.verification.tensors import BITS
from qe_edge_export.graph import attach_head, export_states
from qe_edge_export.passes import quantise_w4a8, quantise_w8a8, quantise_weight_only, simplify, to_half
from qe_edge_export.samples import CalibrationRows, PairRows
from qe_edge_export.writer import save_model
from qe_edge_train.heads import HeadOptions, RegressionHead
from qe_edge_train.tapped import TappedRegressor

VOCABULARY, HIDDEN, HEADS = 90, 128, 4
SHAPE = KeyValueShape(2, 2, HIDDEN // HEADS)
PRECISIONS: dict[str, Callable[[ir.Model, CalibrationRows], None]] = {
    "w8a8": partial(quantise_w8a8, frequent=(3, 4)),
    "w4a8": partial(quantise_w4a8, frequent=(3, 4)),
    "int4": partial(quantise_weight_only, bits=4, embedding_bits=8),
    "int8": partial(quantise_weight_only, bits=8, frequent=(3, 4)),
    "fp16": to_half,
}
NUMBERS = (0, 1, -1, 2, 3, 4, 16, 31, 32, 33, 64, 128, 256, 1 << 20, 1 << 31, (1 << 63) - 1, -(1 << 63))
SIZES = (0, 1, 2, 3, 15, 16, 31, 32, 33, 64, 127, 128, 129, 256)
FLOATS = (0.0, 1.0, -1.0, 0.5, 1e-45, 1e38, -1e38, math.nan, math.inf, -math.inf)
ATTRIBUTES = {
    **dict.fromkeys(("epsilon", "scale", "softcap"), FLOATS),
    **dict.fromkeys(
        ("axis", "batch_dims", "bits", "block_size", "end", "interleaved", "is_causal", "keepdims"), NUMBERS
    ),
    **dict.fromkeys(("kv_num_heads", "num_heads", "q_num_heads", "rotary_embedding_dim", "start", "to"), NUMBERS),
}
LARGEST = 1 << 20
"""bytes of a constant"""
ROWS: tuple[tuple[list[int], list[list[int]]], ...] = (
    ([], [[5]]),
    ([3, 4, 5], [[7, 8, 9], [10]]),
    ([7] * 9, [[1] * 17, [2] * 3, [4] * 9, [89] * 2, [9]]),
)
"""prefixes and what comes after each"""


def check(data: bytes) -> None:
    """Change a graph as the bytes say, and run it if it is not refused. Nothing but an error of ours may come out."""
    numbers = random.Random(data)
    whole, weights = exports()[numbers.choice(list(PRECISIONS))]
    model = ModelProto()
    model.CopyFrom(whole)
    for _ in range(numbers.choice([1, 1, 1, 2, 3, 5])):
        weights = numbers.choice(CHANGES)(model.graph, weights, numbers)
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / MODEL_FILE).write_bytes(model.SerializeToString())
        (folder / WEIGHTS_FILE).write_bytes(weights)
        try:
            check_model(folder / MODEL_FILE, folder / WEIGHTS_FILE)
            graph = Graph(folder / MODEL_FILE, SHAPE)
        except QeEdgeError:
            return
        for prefix, bodies in ROWS:
            try:
                past = graph.prefix(prefix) if prefix else graph.nothing
                graph.scores(past, bodies)
                graph.extend(past, bodies)
            except QeEdgeError:
                continue


@cache
def exports() -> dict[str, tuple[ModelProto, bytes]]:
    """By precision the graph and its weights."""
    torch.manual_seed(5)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=HIDDEN,
        num_hidden_layers=SHAPE.blocks,
        num_attention_heads=HEADS,
        num_key_value_heads=SHAPE.kv_heads,
        initializer_range=0.2,
    )
    decoder = AutoModel.from_config(config, attn_implementation="qe_edge")
    for weight in decoder.parameters():
        weight.data += 0.1 * torch.randn_like(weight)  # norms start at 1, and none would have a step of its own
    head = RegressionHead(HeadOptions(HIDDEN, layer_norm=True, bias=True))
    states = export_states(TappedRegressor(decoder, head).requires_grad_(False).eval())
    simplify(states)
    bodies = [torch.randint(3, VOCABULARY, (5 + n % 4,)).tolist() for n in range(200)]
    rows = CalibrationRows((PairRows([5, 6, 7], bodies),), SHAPE)
    made = {}
    with TemporaryDirectory() as name:
        for precision, quantise in PRECISIONS.items():
            model, folder = states.clone(), Path(name) / precision
            folder.mkdir()
            quantise(model, rows)
            attach_head(model, head)
            save_model(model, folder)
            weights = (folder / WEIGHTS_FILE).read_bytes()
            made[precision] = onnx.load(folder / MODEL_FILE, load_external_data=False), weights
            shutil.rmtree(folder)
    return made


Change = Callable[[onnx.GraphProto, bytes, random.Random], bytes]
"""changes a graph in place and gives the weights as they are then"""


def a_node(graph: onnx.GraphProto, numbers: random.Random) -> NodeProto:
    """One of any operator, however rare it is."""
    operator = numbers.choice(sorted({node.op_type for node in graph.node}))
    found: NodeProto = numbers.choice([node for node in graph.node if node.op_type == operator])
    return found


def a_constant(graph: onnx.GraphProto, numbers: random.Random) -> TensorProto:
    read = set(a_node(graph, numbers).input)
    constants = list(graph.initializer)
    found: TensorProto = numbers.choice([tensor for tensor in constants if tensor.name in read] or constants)
    return found


def reshape(graph: onnx.GraphProto, weights: bytes, numbers: random.Random) -> bytes:
    tensor = a_constant(graph, numbers)
    sizes = list(tensor.dims)
    match numbers.randrange(6):
        case 0 if sizes:
            sizes[numbers.randrange(len(sizes))] = numbers.choice(SIZES)
        case 1:
            numbers.shuffle(sizes)
        case 2:
            sizes.insert(numbers.randrange(len(sizes) + 1), 1)
        case 3 if sizes:
            sizes.pop(numbers.randrange(len(sizes)))
        case 4 if len(sizes) > 1:
            sizes[:2] = [sizes[0] * 2, sizes[1] // 2] if numbers.random() < 0.5 else [sizes[0] // 2, sizes[1] * 2]
        case _:
            sizes = numbers.choice([[], [1], [1, 1]])
    return set_constant(tensor, sizes, tensor.data_type, weights, numbers)


def retype(graph: onnx.GraphProto, weights: bytes, numbers: random.Random) -> bytes:
    tensor = a_constant(graph, numbers)
    return set_constant(tensor, list(tensor.dims), numbers.choice(list(BITS)), weights, numbers)


def set_constant(tensor: TensorProto, sizes: list[int], kind: int, weights: bytes, numbers: random.Random) -> bytes:
    """Give a constant another shape and type, and as many bytes as these take."""
    length = (math.prod(sizes) * BITS[kind] + 7) // 8
    if length > LARGEST:
        return weights
    tensor.data_type = kind
    tensor.dims[:] = sizes
    if tensor.data_location != EXTERNAL:
        tensor.raw_data = (tensor.raw_data * (length // max(1, len(tensor.raw_data)) + 1) or bytes(length))[:length]
        return weights
    place = {entry.key: entry for entry in tensor.external_data}
    if int(place["offset"].value) + length > len(weights):
        place["offset"].value = str(len(weights))
        weights += numbers.randbytes(length)
    place["length"].value = str(length)
    return weights


def refill(graph: onnx.GraphProto, weights: bytes, numbers: random.Random) -> bytes:
    tensor = a_constant(graph, numbers)
    if tensor.raw_data:
        content = bytearray(tensor.raw_data)
        for _ in range(numbers.randrange(1, 9)):
            content[numbers.randrange(len(content))] = numbers.choice([0, 1, 0x7F, 0x80, 0xFF])
        tensor.raw_data = bytes(content)
    return weights


def rewire(graph: onnx.GraphProto, weights: bytes, numbers: random.Random) -> bytes:
    node = a_node(graph, numbers)
    before = [output for earlier in list(graph.node)[: list(graph.node).index(node)] for output in earlier.output]
    like = [name for other in graph.node if other.op_type == node.op_type for name in other.input]
    constants = [tensor.name for tensor in graph.initializer]
    given = [value.name for value in graph.input]
    if node.input:
        names = numbers.choice([before or given, like or given, constants, given])
        node.input[numbers.randrange(len(node.input))] = numbers.choice(names)
    return weights


def add_or_drop(graph: onnx.GraphProto, weights: bytes, numbers: random.Random) -> bytes:
    node = a_node(graph, numbers)
    names = numbers.choice([node.input, node.output])
    match numbers.randrange(3):
        case 0 if names:
            names.pop()
        case 1 if names:
            names.append(f"{numbers.choice(list(names))}{numbers.choice(['', '.more'])}")
        case 2 if names:
            names[numbers.randrange(len(names))] = ""
    return weights


def set_attribute(graph: onnx.GraphProto, weights: bytes, numbers: random.Random) -> bytes:
    node = a_node(graph, numbers)
    there = [a for a in node.attribute if a.type in (a.INT, a.FLOAT) or a.ints]
    if not there or numbers.random() < 0.2:
        name, values = numbers.choice(list(ATTRIBUTES.items()))
        node.attribute.append(helper.make_attribute(name, numbers.choice(values)))
        return weights
    attribute = numbers.choice(there)
    if attribute.type == attribute.FLOAT:
        attribute.f = numbers.choice(FLOATS)
    elif attribute.type == attribute.INT:
        attribute.i = numbers.choice(NUMBERS)
    else:
        attribute.ints[numbers.randrange(len(attribute.ints))] = numbers.choice(NUMBERS)
    return weights


def set_operator(graph: onnx.GraphProto, weights: bytes, numbers: random.Random) -> bytes:
    node = a_node(graph, numbers)
    node.op_type = numbers.choice(sorted(OPERATORS | CONTRIB_OPERATORS))
    node.domain = CONTRIB if node.op_type in CONTRIB_OPERATORS else ""
    return weights


CHANGES: tuple[Change, ...] = (
    *(reshape, reshape, retype, refill, rewire, rewire, rewire),
    *(add_or_drop, set_attribute, set_attribute, set_operator),
)
