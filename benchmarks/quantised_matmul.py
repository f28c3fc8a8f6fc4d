"""How fast the ways to write a W8A8 product in ONNX are, quantising and scaling included.

Every candidate takes float32 activations [M, K] and gives float32 [M, N]; each is checked against numpy before it is
timed. Run on an idle machine:

    python benchmarks/quantised_matmul.py [--seconds 0.5] [--threads 2] [--rows 64,256,600,1200]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray
from onnx_ir.tape import Tape

from qe_edge_export.passes.w8a8 import quantise_weight

Floats = NDArray[np.float32]

LAYERS = {
    "q/k/v": (576, (576, 192, 192)),
    "attention output": (576, (576,)),
    "gate/up": (576, (1536, 1536)),
    "down": (1536, (576,)),
}
"""Linear layers of one block of SmolLM2-135M: K and the widths N of those that read the same activation."""


@dataclass
class Writer:
    """Writes one candidate graph."""

    tape: Tape
    constants: list[ir.Value]

    def op(self, operator: str, *inputs: ir.Value, domain: str = "", **attributes: int) -> ir.Value:
        return self.tape.op(operator, inputs, attributes, domain=domain)

    def constant(self, array: NDArray[np.generic]) -> ir.Value:
        value = ir.Value(name=f"constant_{len(self.constants)}", const_value=ir.tensor(array))
        self.constants.append(value)
        return value

    def number(self, value: float) -> ir.Value:
        return self.constant(np.array(value, np.float32))

    def ints(self, *numbers: int) -> ir.Value:
        return self.constant(np.array(numbers, np.int64))


Quantise = Callable[[Writer, ir.Value, NDArray[np.generic]], tuple[ir.Value, ir.Value]]
"""Writes the quantised activations [M, K] around a zero point, and max|a| [M, 1], of activations [M, K]."""
Product = Callable[[Writer, ir.Value, ir.Value, Floats, NDArray[np.generic]], ir.Value]
"""Writes the float product [M, N] of quantised activations [M, K], the step [M, 1] and a weight [K, N]."""


def largest_of_abs(w: Writer, x: ir.Value) -> ir.Value:
    return w.op("Max", w.op("ReduceMax", w.op("Abs", x), w.ints(-1)), w.number(1e-12))


def largest_of_both_ends(w: Writer, x: ir.Value) -> ir.Value:
    lowest = w.op("Neg", w.op("ReduceMin", x, w.ints(-1)))
    return w.op("Max", w.op("ReduceMax", x, w.ints(-1)), lowest, w.number(1e-12))


def quantise_unit(largest: Callable[[Writer, ir.Value], ir.Value]) -> Quantise:
    """A product per element, then QuantizeLinear with step 1: rounds, saturates and converts in one pass."""

    def write(w: Writer, x: ir.Value, zero: NDArray[np.generic]) -> tuple[ir.Value, ir.Value]:
        most = largest(w, x)
        scaled = w.op("Mul", x, w.op("Div", w.number(127), most))
        return w.op("QuantizeLinear", scaled, w.number(1), w.constant(zero)), most

    return write


def quantise_by_row(w: Writer, x: ir.Value, zero: NDArray[np.generic]) -> tuple[ir.Value, ir.Value]:
    """QuantizeLinear with one step per row, axis 0."""
    most = largest_of_abs(w, x)
    step = w.op("Squeeze", w.op("Div", most, w.number(127)), w.ints(-1))
    zeros = w.op("Expand", w.constant(zero), w.op("Shape", step))
    return w.op("QuantizeLinear", x, step, zeros, axis=0), most


def quantise_in_one_block(w: Writer, x: ir.Value, zero: NDArray[np.generic]) -> tuple[ir.Value, ir.Value]:
    """QuantizeLinear with the whole row as one block."""
    most = largest_of_abs(w, x)
    step = w.op("Div", most, w.number(127))
    zeros = w.op("Expand", w.constant(zero), w.op("Shape", step))
    assert x.shape is not None
    depth = x.shape[1]
    assert isinstance(depth, int)
    return w.op("QuantizeLinear", x, step, zeros, axis=-1, block_size=depth), most


def quantise_step_by_step(w: Writer, x: ir.Value, zero: NDArray[np.generic]) -> tuple[ir.Value, ir.Value]:
    most = largest_of_abs(w, x)
    rounded = w.op("Round", w.op("Mul", x, w.op("Div", w.number(127), most)))
    shifted = w.op("Add", rounded, w.number(float(zero)))
    kind = ir.DataType.from_numpy(zero.dtype)
    return w.op("Cast", shifted, to=int(kind)), most


def product_to_float(
    w: Writer, quantised: ir.Value, step: ir.Value, weight: Floats, zero: NDArray[np.generic]
) -> ir.Value:
    """MatMulIntegerToFloat, which scales the channels itself."""
    integers, steps = quantise_weight(weight)
    inputs = [quantised, w.constant(integers), w.number(1), w.constant(steps), w.constant(zero)]
    return w.op("Mul", w.op("MatMulIntegerToFloat", *inputs, domain="com.microsoft"), step)


def product_standard(
    w: Writer, quantised: ir.Value, step: ir.Value, weight: Floats, zero: NDArray[np.generic]
) -> ir.Value:
    """MatMulInteger, Cast and two products: standard operators only."""
    integers, steps = quantise_weight(weight)
    whole = w.op("MatMulInteger", quantised, w.constant(integers), w.constant(zero))
    return w.op("Mul", w.op("Mul", w.op("Cast", whole, to=int(ir.DataType.FLOAT)), step), w.constant(steps))


UNSIGNED, SIGNED = np.array(128, np.uint8), np.array(0, np.int8)
UNIT = quantise_unit(largest_of_abs)
CANDIDATES: dict[str, tuple[Quantise, Product, NDArray[np.generic], bool]] = {
    # quantise, product, zero point, whether layers that read one activation are fused and split again
    "as exported": (UNIT, product_to_float, UNSIGNED, False),
    "fused and split": (UNIT, product_to_float, UNSIGNED, True),
    "max and min": (quantise_unit(largest_of_both_ends), product_to_float, UNSIGNED, False),
    "step per row": (quantise_by_row, product_to_float, UNSIGNED, False),
    "step per block": (quantise_in_one_block, product_to_float, UNSIGNED, False),
    "round, cast": (quantise_step_by_step, product_to_float, UNSIGNED, False),
    "MatMulInteger": (UNIT, product_standard, UNSIGNED, False),
    "signed": (UNIT, product_to_float, SIGNED, False),
    "signed, MatMulInteger": (UNIT, product_standard, SIGNED, False),
}


def candidate_model(name: str, weights: list[Floats]) -> bytes:
    """The serialised graph of a candidate: input x [M, K], one output for each weight [K, N]."""
    quantise, product, zero, fused = CANDIDATES[name]
    w = Writer(Tape(), [])
    depth = weights[0].shape[0]
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["rows", depth]))
    quantised, most = quantise(w, x, zero)
    step = w.op("Div", most, w.number(127))
    if fused and len(weights) > 1:
        whole = product(w, quantised, step, np.concatenate(weights, axis=1), zero)
        sizes = w.ints(*(weight.shape[1] for weight in weights))
        outputs = w.tape.op_multi_out("Split", [whole, sizes], {"axis": -1}, num_outputs=len(weights))
    else:
        outputs = [product(w, quantised, step, weight, zero) for weight in weights]
    for i, (output, weight) in enumerate(zip(outputs, weights, strict=True)):
        output.name, output.type = f"y{i}", ir.TensorType(ir.DataType.FLOAT)
        output.shape = ir.Shape(["rows", weight.shape[1]])
    imports = {"": 23, "com.microsoft": 1}
    graph = ir.Graph([x], outputs, nodes=w.tape.nodes, initializers=w.constants, opset_imports=imports)
    content: bytes = ir.to_proto(ir.Model(graph, ir_version=10)).SerializeToString()
    return content


def expected(x: Floats, weight: Floats) -> Floats:
    """The same product in numpy."""
    integers, steps = quantise_weight(weight)
    most = np.abs(x).max(axis=1, keepdims=True)
    quantised = np.rint(x * (np.float32(127) / most))
    result: Floats = (quantised @ integers.astype(np.float32) * steps * (most / 127)).astype(np.float32)
    return result


def milliseconds(session: ort.InferenceSession, x: Floats, seconds: float) -> float:
    """The fastest of the runs that fit into the time."""
    binding = session.io_binding()
    binding.bind_cpu_input("x", x)
    for output in session.get_outputs():
        binding.bind_output(output.name)
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end or best == float("inf"):
        start = time.perf_counter()
        session.run_with_iobinding(binding)
        best = min(best, time.perf_counter() - start)
    return best * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=0.5, help="time for each figure")
    parser.add_argument("--threads", type=int, default=0, help="threads of ONNX Runtime; 0: as it chooses")
    parser.add_argument("--rows", default="64,256,600,1200", help="values of M")
    arguments = parser.parse_args()
    sizes = [int(size) for size in arguments.rows.split(",")]
    random = np.random.default_rng(0)
    options = ort.SessionOptions()
    options.intra_op_num_threads = arguments.threads
    print(f"milliseconds, best of {arguments.seconds} s; rows M = {sizes}")
    for layer, (depth, widths) in LAYERS.items():
        weights = [(random.standard_normal((depth, width)) / depth**0.5).astype(np.float32) for width in widths]
        inputs = [random.standard_normal((size, depth)).astype(np.float32) for size in sizes]
        print(f"\n{layer}: K {depth}, N {widths}")
        for name in CANDIDATES:
            session = ort.InferenceSession(candidate_model(name, weights), options, providers=["CPUExecutionProvider"])
            for found, weight in zip(session.run(None, {"x": inputs[0]}), weights, strict=True):
                # one step of rounding may fall to the other side where a division replaces a product
                np.testing.assert_allclose(found, expected(inputs[0], weight), atol=0.02, err_msg=name)
            times = [milliseconds(session, x, arguments.seconds) for x in inputs]
            print(f"  {name:22}" + "".join(f"{each:9.3f}" for each in times))


if __name__ == "__main__":
    main()
