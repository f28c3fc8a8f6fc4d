"""Weights that lie in 4 bits, against ONNX Runtime's own expansion; places that a file does not have."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from qe_edge.scoring.kernels.library import SWITCH, library
from qe_edge.scoring.kernels.packing import Place, Weights, pack
from qe_edge.scoring.kernels.rewrite import with_kernels

INPUTS, CHANNELS, TOGETHER = 128, 192, 32
HEAD = 64
"""size of an attention head, which the graph has none of"""
TOKENS = "tokens"


def write_product(
    path: Path, random: np.random.Generator, divisors: NDArray[np.float16] | NDArray[np.float32], together: int
) -> None:
    """A graph of one product of w4a8, its constants in a file."""
    blocks = INPUTS // together
    integers = random.integers(0, 16, (INPUTS, CHANNELS)).astype(ml_dtypes.uint4)
    constants = {
        "int4": integers,
        "divisors": divisors,
        "zeros": random.integers(-128, 128, (blocks, CHANNELS)).astype(np.int8),
        "scale": np.float32(0.02),
        "steps": random.random(CHANNELS).astype(np.float32),
        "zero": np.uint8(128),
    }
    nodes = [
        helper.make_node("Cast", ["int4"], ["floats"], to=helper.np_dtype_to_tensor_dtype(divisors.dtype)),
        helper.make_node("QuantizeLinear", ["floats", "divisors", "zeros"], ["w"], axis=0, block_size=together),
        helper.make_node(
            "MatMulIntegerToFloat", [TOKENS, "w", "scale", "steps", "zero"], ["product"], domain="com.microsoft"
        ),
    ]
    graph = helper.make_graph(
        nodes,
        "a product",
        [helper.make_tensor_value_info(TOKENS, TensorProto.UINT8, [None, None, INPUTS])],
        [helper.make_tensor_value_info("product", TensorProto.FLOAT, [None, None, CHANNELS])],
        [numpy_helper.from_array(np.asarray(values), name) for name, values in constants.items()],
    )
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=11)
    onnx.save(model, path, save_as_external_data=True, location="weights", size_threshold=256)


def some_divisors(random: np.random.Generator, together: int = TOGETHER) -> NDArray[np.float16]:
    return (0.05 + random.random((INPUTS // together, CHANNELS))).astype(np.float16)


@pytest.mark.usefixtures("products")
def test_weights_in_4_bits_are_those_that_onnx_runtime_makes(tmp_path: Path, random: np.random.Generator) -> None:
    path = tmp_path / "model.onnx"
    write_product(path, random, some_divisors(random), TOGETHER)
    rewritten = with_kernels(path, HEAD)
    assert rewritten is not None
    assert rewritten.fused == {"Linear": 1}
    options = ort.SessionOptions()
    options.register_custom_ops_library(str(rewritten.library))
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(tmp_path))
    held = {name: ort.OrtValue.ortvalue_from_numpy(values) for name, values in rewritten.weights.items()}
    for name, values in held.items():
        options.add_initializer(name, values)
    tokens = {TOKENS: random.integers(0, 256, (2, 9, INPUTS)).astype(np.uint8)}
    (found,) = ort.InferenceSession(rewritten.model, options).run(None, tokens)
    plain = onnx.load(path)
    plain.graph.output.append(helper.make_tensor_value_info("w", TensorProto.INT8, [INPUTS, CHANNELS]))
    (weights,) = ort.InferenceSession(plain.SerializeToString()).run(["w"], tokens)
    # multiplied here, since ONNX Runtime's product saturates on processors without VNNI
    steps = numpy_helper.to_array(next(one for one in plain.graph.initializer if one.name == "steps"))
    exact = (tokens[TOKENS].astype(float) - 128) @ weights.astype(float) * np.float32(0.02) * steps
    np.testing.assert_allclose(found, exact, rtol=1e-6)


@pytest.mark.usefixtures("products")
def test_other_ways_to_keep_4_bits_are_left_to_onnx_runtime(tmp_path: Path, random: np.random.Generator) -> None:
    write_product(tmp_path / "larger", random, some_divisors(random, 64), 64)
    write_product(tmp_path / "float32", random, some_divisors(random).astype(np.float32), TOGETHER)
    assert with_kernels(tmp_path / "larger", HEAD) is None
    assert with_kernels(tmp_path / "float32", HEAD) is None


@pytest.mark.parametrize(
    "weights",
    [
        Weights(Place("weights", 0, (64, 64))),
        Weights(Place("weights", 0, (64, 2)), (Place("weights", 0, (2, 64)), Place("weights", 0, (2, 2)))),
    ],
    ids=["int8", "int4"],
)
def test_a_file_that_is_too_short_is_an_error(products: Path, tmp_path: Path, weights: Weights) -> None:
    (tmp_path / "weights").write_bytes(bytes(100))
    with pytest.raises(ValueError, match="reshape"):
        pack(products, tmp_path, {b"w": weights})


def test_groups_of_pairs_are_taken_together_where_16_bits_hold_their_sums(
    tmp_path: Path, random: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SWITCH, "pairs")
    found = library()
    assert found is not None
    inputs, channels, block = 256, 64, 16
    weights = np.clip(random.normal(0, 30, (inputs, channels)), -64, 64).astype(np.int8)
    weights[::2, 21], weights[1::2, 21] = 20, -20
    weights[12:14, 21], weights[14:16, 21] = 60, -60  # fit no other group
    weights[8:10, 5] = 127  # a pair by itself is too large
    (tmp_path / "weights").write_bytes(weights.tobytes())
    notes = pack(found, tmp_path, {b"w": Weights(Place("weights", 0, weights.shape))})[b"w"].notes
    np.testing.assert_array_equal(notes[:channels], weights.sum(0, dtype=np.int32))
    orders = notes[channels:].reshape(channels // block, 2 + inputs // 8)
    for order, of_block in zip(orders, np.split(weights.astype(int), channels // block, axis=1), strict=True):
        together, alone = order[:2]
        groups = order[2:].view(np.uint16)
        assert sorted(groups) == list(range(0, inputs, 4))

        def sums(first: int, of_block: NDArray[np.int_] = of_block) -> NDArray[np.int_]:
            """Of a group's pairs, those of each sign by themselves."""
            pairs = of_block[first : first + 4].reshape(2, 2, -1)
            return np.stack([np.maximum(pairs, 0).sum(1), np.maximum(-pairs, 0).sum(1)])

        for one, other in groups[: 2 * together].reshape(-1, 2):
            assert (sums(one) + sums(other)).max() <= 128
        assert all(sums(one).max() <= 128 for one in groups[2 * together : 2 * together + alone])
        assert all(sums(one).max() > 128 for one in groups[2 * together + alone :])
    assert orders[0, :2] @ [2, 1] == inputs // 4 - 1
    assert 12 in orders[1, 2:].view(np.uint16)[2 * orders[1, 0] :]
    assert 2 * orders[:, 0].sum() > 0.9 * groups.size * len(orders)
