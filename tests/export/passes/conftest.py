"""Tiny random decoders in the form in which torch's exporter writes the supported families.

Legend: B rows, S tokens, P prefix tokens, H hidden size, G key/value heads, D head size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx_ir.tape import Tape

from qe_edge.scoring.graph import Graph, KeyValueShape, pad

VOCABULARY, H, HEADS, G, D, MLP, BLOCKS = 40, 32, 4, 2, 8, 48, 2
SHAPE = KeyValueShape(BLOCKS, G, D)

Feeds = dict[str, NDArray[Any]]
Outputs = dict[str, NDArray[Any]]


@dataclass
class TinyDecoder:
    """Writes one decoder; the options are what sets the families apart."""

    biases: bool = False
    """biases after the query, key and value products (Qwen2)"""
    joined: bool = False
    """one product for queries, keys and values, cut by Slice, and one for gate and up, cut by Split (Phi3)"""
    parallel: bool = False
    """attention and MLP read one norm, which subtracts the mean first (Cohere)"""
    post_norms: bool = False
    """norms also after attention and MLP, and a scaled embedding (Gemma3)"""
    layer_norm: bool = False
    """LayerNormalization with a bias instead of RMSNormalization"""
    taps: int = 1
    """states to read: those after the last blocks, the last block's first"""

    def __post_init__(self) -> None:
        self.tape = Tape()
        self.constants: list[ir.Value] = []
        self.random = np.random.default_rng(7)

    def model(self) -> ir.Model:
        inputs = {
            "tokens": _value("tokens", ir.DataType.INT64, ["batch", "length"]),
            "last": _value("last", ir.DataType.INT64, ["batch"]),
        }
        for name in SHAPE.inputs:
            inputs[name] = _value(name, ir.DataType.FLOAT, [1, G, "prefix", D])
        states = self.forward(inputs)
        outputs = [*states, *self.present]
        names = ["state"] if self.taps == 1 else [f"state_{tap}" for tap in range(self.taps)]
        for value, name in zip(outputs, [*names, *SHAPE.outputs], strict=True):
            value.name, value.type = name, ir.TensorType(ir.DataType.FLOAT)
        graph = ir.Graph(
            list(inputs.values()),
            outputs,
            nodes=self.tape.nodes,
            initializers=self.constants,
            opset_imports={"": 23},
            name="tiny",
        )
        return ir.Model(graph, ir_version=10)

    def forward(self, inputs: dict[str, ir.Value]) -> list[ir.Value]:
        self.present: list[ir.Value] = []
        tokens = inputs["tokens"]
        batch = self.op("Shape", [tokens], start=0, end=1)
        length = self.op("Shape", [tokens], start=1, end=2)
        before = self.op("Squeeze", [self.op("Shape", [inputs["past_key_0"]], start=2, end=3)])
        position = self.op("Range", [self.ints(0), self.op("Squeeze", [length]), self.ints(1)])
        position = self.op("Add", [position, before])
        every = self.op("Add", [self.op("Squeeze", [length]), before])
        every = self.op("Range", [self.ints(0), every, self.ints(1)])
        mask = self.op("LessOrEqual", [every, self.op("Unsqueeze", [position, self.ints([1])])])
        self.mask = self.op("Unsqueeze", [mask, self.ints([0, 1])])
        position = self.op("Expand", [position, self.op("Concat", [batch, self.ints([1])], axis=0)])
        position = self.op("Cast", [self.op("Unsqueeze", [position, self.ints([2])])], to=ir.DataType.FLOAT)
        self.angle = self.op("Mul", [position, self.weight(1, D // 2)])
        self.every_row = self.op("Concat", [batch, self.ints([1, 1, 1])], axis=0)
        self.heads = self.op("Concat", [batch, length, self.ints([-1, D])], axis=0)
        self.flat = self.op("Concat", [batch, length, self.ints([-1])], axis=0)
        hidden = self.op("Gather", [self.weight(VOCABULARY, H), tokens], H, axis=0)
        if self.post_norms:
            hidden = self.op("Mul", [hidden, self.constant(np.array(H**0.5, np.float32))], H)
        after: list[ir.Value] = []
        for block in range(BLOCKS):
            hidden = self.block(hidden, inputs[f"past_key_{block}"], inputs[f"past_value_{block}"])
            after.append(hidden)
        rows = self.op("Range", [self.ints(0), self.op("Squeeze", [batch]), self.ints(1)])
        pair = [self.op("Unsqueeze", [value, self.ints([-1])]) for value in (rows, inputs["last"])]
        picked = self.op("Concat", pair, axis=-1)
        states = [self.op("GatherND", [hidden, picked], batch_dims=0) for hidden in after[: -self.taps - 1 : -1]]
        for state in states:
            state.shape = ir.Shape(["batch", H])
        return states

    def block(self, hidden: ir.Value, past_key: ir.Value, past_value: ir.Value) -> ir.Value:
        normed = self.norm(hidden)
        mixed = self.attention(normed, past_key, past_value)
        if self.parallel:
            return self.op("Add", [self.op("Add", [hidden, mixed], H), self.mlp(normed)], H)
        hidden = self.op("Add", [hidden, self.norm(mixed) if self.post_norms else mixed], H)
        fed = self.mlp(self.norm(hidden))
        return self.op("Add", [hidden, self.norm(fed) if self.post_norms else fed], H)

    def attention(self, x: ir.Value, past_key: ir.Value, past_value: ir.Value) -> ir.Value:
        widths = [HEADS * D, G * D, G * D]
        if self.joined:
            whole = self.linear(x, sum(widths))
            ends = np.cumsum([0, *widths])
            parts = [
                self.op("Slice", [whole, *(self.ints([n]) for n in (ends[i], ends[i + 1], 2, 1))], widths[i])
                for i in range(3)
            ]
        else:
            parts = [self.linear(x, width, self.biases) for width in widths]
        query, key, value = (
            self.op("Transpose", [self.op("Reshape", [part, self.heads])], perm=[0, 2, 1, 3]) for part in parts
        )
        query, key = (
            self.op("RotaryEmbedding", [each, self.op("Cos", [self.angle]), self.op("Sin", [self.angle])])
            for each in (query, key)
        )
        for past, new in ((past_key, key), (past_value, value)):
            self.present.append(self.op("Concat", [self.op("Expand", [past, self.every_row]), new], axis=-2))
        mixed = self.op("Attention", [query, *self.present[-2:], self.mask], scale=D**-0.5)
        mixed = self.op("Reshape", [self.op("Transpose", [mixed], perm=[0, 2, 1, 3]), self.flat], HEADS * D)
        return self.linear(mixed, H)

    def mlp(self, x: ir.Value) -> ir.Value:
        if self.joined:
            gate, up = self.tape.op_multi_out(
                "Split", [self.linear(x, 2 * MLP)], {"axis": 2, "num_outputs": 2}, num_outputs=2
            )
            gate.shape = up.shape = ir.Shape(["batch", "length", MLP])
        else:
            gate, up = self.linear(x, MLP), self.linear(x, MLP)
        if self.post_norms:
            gate = self.op("Gelu", [gate], MLP, approximate="tanh")
        else:
            gate = self.op("Mul", [gate, self.op("Sigmoid", [gate], MLP)], MLP)
        return self.linear(self.op("Mul", [gate, up], MLP), H)

    def linear(self, x: ir.Value, width: int, bias: bool = False) -> ir.Value:
        assert x.shape is not None
        depth = x.shape[-1]
        assert isinstance(depth, int)
        product = self.op("MatMul", [x, self.weight(depth, width)], width)
        return self.op("Add", [product, self.weight(width)], width) if bias else product

    def norm(self, x: ir.Value) -> ir.Value:
        if self.parallel:
            x = self.op("Sub", [x, self.op("ReduceMean", [x, self.ints([-1])], 1)], H)
        scale = self.constant(self.random.uniform(0.2, 2, H).astype(np.float32))
        if self.layer_norm:
            return self.op("LayerNormalization", [x, scale, self.weight(H)], H, axis=-1)
        return self.op("RMSNormalization", [x, scale], H, axis=-1)

    def op(self, operator: str, inputs: Sequence[ir.Value], width: int | None = None, **attributes: Any) -> ir.Value:
        """One node; with `width`, its output is known to be [batch, length, width]."""
        output = self.tape.op(operator, inputs, attributes)
        output.name = f"{operator}_{len(self.tape.nodes)}"
        output.type = ir.TensorType(ir.DataType.FLOAT) if width else None
        output.shape = ir.Shape(["batch", "length", width]) if width else None
        return output

    def weight(self, *shape: int) -> ir.Value:
        return self.constant((self.random.standard_normal(shape) * shape[0] ** -0.5).astype(np.float32))

    def ints(self, numbers: int | list[int]) -> ir.Value:
        return self.constant(np.array(numbers, np.int64))

    def constant(self, array: NDArray[Any]) -> ir.Value:
        value = _value(f"constant_{len(self.constants)}", ir.tensor(array).dtype, list(array.shape))
        value.const_value = ir.tensor(array)
        self.constants.append(value)
        return value


def _value(name: str, kind: ir.DataType, shape: list[Any]) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(kind), shape=ir.Shape(shape))


FAMILIES: dict[str, dict[str, bool]] = {
    "llama": {},
    "qwen2": {"biases": True},
    "phi3": {"joined": True},
    "cohere": {"parallel": True},
    "gemma3": {"post_norms": True},
    "layer_norm": {"layer_norm": True},
}


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> ir.Model:
    """A decoder of each family in turn."""
    return TinyDecoder(**FAMILIES[request.param]).model()


@pytest.fixture
def decoder() -> Callable[..., ir.Model]:
    """A decoder of the family asked for, with one tap or as many as asked for."""

    def build(family: str, taps: int = 1) -> ir.Model:
        return TinyDecoder(**FAMILIES[family], taps=taps).model()

    return build


def _product_model(*weights: NDArray[np.float32]) -> ir.Model:
    """x [rows, K] times each constant weight [K, N]: outputs y0, y1, .."""
    depth = weights[0].shape[0]
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["rows", depth]))
    constants = [ir.Value(name=f"w{i}", const_value=ir.tensor(weight)) for i, weight in enumerate(weights)]
    nodes = [ir.node("MatMul", [x, constant]) for constant in constants]
    for i, (node, weight) in enumerate(zip(nodes, weights, strict=True)):
        node.outputs[0].name = f"y{i}"
        node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
        node.outputs[0].shape = ir.Shape(["rows", weight.shape[1]])
    graph = ir.Graph(
        [x], [node.outputs[0] for node in nodes], nodes=nodes, initializers=constants, opset_imports={"": 23}
    )
    return ir.Model(graph, ir_version=10)


@pytest.fixture(scope="session")
def product_model() -> Callable[..., ir.Model]:
    """Products of x with the constant weights given."""
    return _product_model


@pytest.fixture
def run() -> Callable[..., Outputs]:
    """Runs a model in ONNX Runtime: feeds in, outputs by name out; `inside` names further values to return."""

    def run(model: ir.Model, feeds: Feeds, inside: Sequence[str] = ()) -> Outputs:
        outputs = list(model.graph.outputs)
        values = {value.name: value for node in model.graph for value in node.outputs}
        model.graph.outputs.extend(values[name] for name in inside)
        content = ir.to_proto(model).SerializeToString()
        model.graph.outputs[:] = outputs
        session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
        names = [value.name for value in session.get_outputs()]
        return dict(zip(names, session.run(names, feeds), strict=True))

    return run


@pytest.fixture
def cases() -> list[Feeds]:
    """Inputs for a tiny decoder: a batch after a prefix, one row without a prefix, single tokens."""
    random = np.random.default_rng(3)
    cases = []
    for rows, length, prefix in ((3, 7, 5), (1, 4, 0), (4, 1, 2)):
        feeds: Feeds = {name: random.standard_normal((1, G, prefix, D)).astype(np.float32) for name in SHAPE.inputs}
        feeds["tokens"] = random.integers(0, VOCABULARY, (rows, length))
        feeds["last"] = random.integers(0, length, rows)
        cases.append(feeds)
    return cases


@dataclass(frozen=True)
class TinyBatch:
    outputs: list[NDArray[Any]]
    real: NDArray[np.bool_]


@dataclass(frozen=True)
class TinyRows:
    """Calibration rows of random ids, run two at a time through the runtime's own graph."""

    folder: Path
    bodies: list[list[int]]
    prefix: tuple[int, ...] = (1, 2, 3)

    def whole_prompts(self) -> TinyRows:
        return TinyRows(self.folder, [[*self.prefix, *body] for body in self.bodies], ())

    def run(self, model: ir.Model, outputs: Sequence[str]) -> Iterator[TinyBatch]:
        before = list(model.graph.outputs)
        values = {value.name: value for node in model.graph for value in node.outputs}
        model.graph.outputs.extend(values[name] for name in outputs)
        path = self.folder / "calibration.onnx"
        ir.save(model, path)
        model.graph.outputs[:] = before
        graph = Graph(path, SHAPE, threads=1)
        past = graph.prefix(self.prefix)
        for start in range(0, len(self.bodies), 2):
            tokens, last = pad(self.bodies[start : start + 2])
            real = np.arange(tokens.shape[1]) <= last[:, None]
            yield TinyBatch(graph.run(past, tokens, last, outputs), real)


@pytest.fixture
def rows_of(tmp_path: Path) -> Callable[[list[list[int]]], TinyRows]:
    """Calibration rows of the token ids given."""
    return lambda bodies: TinyRows(tmp_path, bodies)


@pytest.fixture
def rows(rows_of: Callable[[list[list[int]]], TinyRows]) -> TinyRows:
    """Four calibration rows of random ids."""
    random = np.random.default_rng(11)
    return rows_of([random.integers(0, VOCABULARY, length).tolist() for length in (9, 4, 6, 2)])
