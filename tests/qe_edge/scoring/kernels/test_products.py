"""Kernels of products, each against the same formula in float64, and against sizes that do not belong together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qe_edge.scoring.kernels.library import SWITCH, library
from qe_edge.scoring.kernels.packing import Packed, Place, Weights, pack
from tests.qe_edge.scoring.kernels.conftest import (
    FLOOR,
    LEVELS,
    ZERO,
    Array,
    Run,
    assert_quantised,
    floats,
    token_steps,
)

SCALE = np.array(0.02, np.float32)


def weights(random: np.random.Generator, inputs: int, channels: int) -> Array:
    return random.integers(-127, 128, (inputs, channels)).astype(np.int8)


def packed(products: Path, folder: Path, plain: Array) -> Packed:
    """Weights read from a file where they lie behind other numbers."""
    (folder / "weights").write_bytes(b"other" + plain.tobytes())
    return pack(products, folder, {b"w": Weights(Place("weights", 5, plain.shape))})[b"w"]


def product(tokens: Array, plain: Array, scales: Array) -> Array:
    exact: Array = (tokens.astype(float) - 128) @ plain.astype(float) * (SCALE * scales)
    return exact


@pytest.mark.parametrize(("inputs", "channels"), [(64, 64), (576, 192), (1536, 576), (128, 320)])
@pytest.mark.parametrize("tokens", [(1, 1), (2, 8), (3, 11), (1, 16), (1, 17), (1, 200)])
def test_product(
    kernel: Run,
    random: np.random.Generator,
    products: Path,
    tmp_path: Path,
    tokens: tuple[int, int],
    inputs: int,
    channels: int,
) -> None:
    plain, scales = weights(random, inputs, channels), np.abs(floats(random, channels))
    given = random.integers(0, 256, (*tokens, inputs)).astype(np.uint8)
    ready = packed(products, tmp_path, plain)
    (found,) = kernel("Linear", given, SCALE, ZERO, ready.weights, ready.notes, scales)
    np.testing.assert_allclose(found, product(given, plain, scales), rtol=1e-6)


@pytest.mark.parametrize(("inputs", "channels"), [(64, 64), (576, 576), (1536, 320)])
@pytest.mark.parametrize("tokens", [(1, 1), (3, 11), (1, 16), (1, 17), (2, 200)])
def test_product_sum_norm_and_step(
    kernel: Run,
    random: np.random.Generator,
    products: Path,
    tmp_path: Path,
    tokens: tuple[int, int],
    inputs: int,
    channels: int,
) -> None:
    """In one kernel as in two, to the last bit."""
    given = random.integers(0, 256, (*tokens, inputs)).astype(np.uint8)
    ready = packed(products, tmp_path, weights(random, inputs, channels))
    operands = (given, SCALE, ZERO, ready.weights, ready.notes, np.abs(floats(random, channels)) * np.float32(0.001))
    rest = (np.abs(floats(random, *tokens, 1)), floats(random, channels), np.float32(0.03), ZERO)
    residual = floats(random, *tokens, channels)
    (product,) = kernel("Linear", *operands)
    apart = kernel("AddNormQuantize", residual, product, *rest, epsilon=1e-5)
    together = kernel("LinearAddNormQuantize", *operands, residual, *rest, epsilon=1e-5)
    for one, other in zip(together, apart, strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_a_token_gives_does_not_depend_on_how_many_others_there_are(
    kernel: Run, random: np.random.Generator, products: Path, tmp_path: Path
) -> None:
    tokens = random.integers(0, 256, (1, 400, 128)).astype(np.uint8)
    ready = packed(products, tmp_path, weights(random, 128, 64))
    operands = (ZERO, ready.weights, ready.notes, np.abs(floats(random, 64)) * np.float32(0.01))
    of_tokens, residual = np.abs(floats(random, 1, 400, 1)), floats(random, 1, 400, 64)
    norm = (floats(random, 64), np.float32(0.03), ZERO)

    def run(part: slice) -> list[Array]:
        given = tokens[:, part]
        gated = (*operands, *operands[1:], FLOOR, LEVELS, ZERO)
        rest = (residual[:, part], of_tokens[:, part], *norm)
        return [
            *kernel("Linear", given, SCALE, *operands),
            *kernel("GatedQuantize", given, SCALE, *gated),
            *kernel("GatedQuantize", given, of_tokens[:, part], *gated),
            *kernel("LinearAddNormQuantize", given, SCALE, *operands, *rest, epsilon=1e-5),
        ]

    together = run(slice(None))
    for part in (slice(0, 1), slice(16, 17), slice(15, 48), slice(180, 229), slice(399, 400)):
        for found, whole in zip(run(part), together, strict=True):
            np.testing.assert_array_equal(found, whole[:, part])


@pytest.mark.parametrize("inputs", [576, 1 << 16])
def test_products_of_weights_as_they_are_spread_in_layers(
    kernel: Run, random: np.random.Generator, products: Path, tmp_path: Path, inputs: int
) -> None:
    plain = np.clip(random.normal(0, 30, (inputs, 64)), -128, 127).astype(np.int8)
    given, scales = random.integers(0, 256, (1, 20, inputs)).astype(np.uint8), np.ones(64, np.float32)
    ready = packed(products, tmp_path, plain)
    (found,) = kernel("Linear", given, SCALE, ZERO, ready.weights, ready.notes, scales)
    np.testing.assert_allclose(found, product(given, plain, scales), rtol=1e-6)


@pytest.mark.parametrize("size", [1, 31, 32, 63, 64, 65, 128])
def test_products_of_the_largest_activations(
    kernel: Run, random: np.random.Generator, products: Path, tmp_path: Path, size: int
) -> None:
    """Sums of two and of four such products are on both sides of what 16 bits hold."""
    plain = np.where(random.random((128, 64)) < 0.9, size, -size).clip(-128, 127).astype(np.int8)
    plain[:, 32:] *= -1
    plain[::3, ::5] = random.integers(-size, size, plain[::3, ::5].shape)
    given = random.choice([0, 254, 255], (1, 9, 128), p=[0.1, 0.1, 0.8]).astype(np.uint8)
    ready, scales = packed(products, tmp_path, plain), np.ones(64, np.float32)
    (found,) = kernel("Linear", given, SCALE, ZERO, ready.weights, ready.notes, scales)
    np.testing.assert_allclose(found, product(given, plain, scales), rtol=1e-6)


@pytest.mark.parametrize(("inputs", "channels"), [(64, 64), (576, 1536)])
@pytest.mark.parametrize("tokens", [(1, 1), (2, 8), (3, 11), (1, 193), (2, 200)])
def test_gated_products(
    kernel: Run,
    random: np.random.Generator,
    products: Path,
    tmp_path: Path,
    tokens: tuple[int, int],
    inputs: int,
    channels: int,
) -> None:
    given = random.integers(0, 256, (*tokens, inputs)).astype(np.uint8)
    gate, up = weights(random, inputs, channels), weights(random, inputs, channels)
    scales = [np.abs(floats(random, channels)) * np.float32(0.01) for _ in "gu"]
    ready = [packed(products, tmp_path, plain) for plain in (gate, up)]
    operands = [x for one, scale in zip(ready, scales, strict=True) for x in (one.weights, one.notes, scale)]
    quantised, steps = kernel("GatedQuantize", given, SCALE, ZERO, *operands, FLOOR, LEVELS, ZERO)
    wide = product(given, gate, scales[0])
    integers, exact = token_steps(wide / (1 + np.exp(-wide)) * product(given, up, scales[1]))
    np.testing.assert_allclose(steps, exact, rtol=2e-5)
    assert_quantised(quantised, integers)


@pytest.mark.parametrize("tokens", [(1, 1), (3, 11), (2, 200)])
def test_gated_products_of_tokens_with_a_scale_each(
    kernel: Run, random: np.random.Generator, products: Path, tmp_path: Path, tokens: tuple[int, int]
) -> None:
    """As the products, multiplied by the scales, and gated, to the last bit."""
    given = random.integers(0, 256, (*tokens, 64)).astype(np.uint8)
    of_tokens = np.abs(floats(random, *tokens, 1))
    ready = [packed(products, tmp_path, weights(random, 64, 128)) for _ in "gu"]
    operands = [(one.weights, one.notes, np.abs(floats(random, 128)) * np.float32(0.001)) for one in ready]
    together = kernel("GatedQuantize", given, of_tokens, ZERO, *operands[0], *operands[1], FLOOR, LEVELS, ZERO)
    gate, up = (kernel("Linear", given, np.array(1, np.float32), ZERO, *one)[0] * of_tokens for one in operands)
    apart = kernel("SwigluQuantize", gate, up, FLOOR, LEVELS, ZERO)
    for one, other in zip(together, apart, strict=True):
        np.testing.assert_array_equal(one, other)


def test_gates_far_from_zero_are_open_or_shut(
    kernel: Run, random: np.random.Generator, products: Path, tmp_path: Path
) -> None:
    given = np.full((1, 1, 64), 255, np.uint8)
    ready = packed(products, tmp_path, np.full((64, 64), 127, np.int8) * np.resize([1, -1], 64).astype(np.int8))
    scales = np.ones(64, np.float32)
    operands = (ready.weights, ready.notes, scales)
    quantised, steps = kernel("GatedQuantize", given, SCALE, ZERO, *operands, *operands, FLOOR, LEVELS, ZERO)
    top = 64 * 127 * 127 * 0.02
    np.testing.assert_array_equal(quantised[0, 0], np.resize([255, 128], 64))
    np.testing.assert_allclose(steps, top * top / 127, rtol=1e-5)


@pytest.mark.parametrize("number", [0, 1, 2, -1])
def test_notes_that_name_what_is_not_there_are_an_error(
    kernel: Run, random: np.random.Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setenv(SWITCH, "pairs")
    found = library()
    assert found is not None
    ready = packed(found, tmp_path, weights(random, 128, 64))
    given = (np.zeros((1, 1, 128), np.uint8), SCALE, ZERO)
    of_last_block = ready.notes[64:].reshape(4, 2 + 128 // 8)[3]
    for wrong in (-1, 1 << 24, 0x7FFFFFFF):
        right, of_last_block[number] = of_last_block[number], wrong
        with pytest.raises(Exception, match="product: notes"):
            kernel("Linear", *given, ready.weights, ready.notes, np.ones(64, np.float32))
        of_last_block[number] = right


@pytest.mark.usefixtures("products")
@pytest.mark.parametrize(
    "operator", ["AddNormQuantize", "SwigluQuantize", "Linear", "LinearAddNormQuantize", "GatedQuantize"]
)
def test_more_axes_than_a_tensor_has_are_an_error(kernel: Run, random: np.random.Generator, operator: str) -> None:
    deep = floats(random, *[1] * 60, 64)
    operands = (weights(random, 64, 64), np.zeros(64, np.int32), np.ones(64, np.float32))
    row, norm = floats(random, 1, 1, 64), (np.ones((1, 1), np.float32), np.ones(64, np.float32), SCALE, ZERO)
    inputs = {
        "AddNormQuantize": (deep, deep, *norm),
        "SwigluQuantize": (deep, deep, FLOOR, LEVELS, ZERO),
        "Linear": (deep.astype(np.uint8), SCALE, ZERO, *operands),
        "LinearAddNormQuantize": (deep.astype(np.uint8), SCALE, ZERO, *operands, row, *norm),
        "GatedQuantize": (deep.astype(np.uint8), SCALE, ZERO, *operands, *operands, FLOOR, LEVELS, ZERO),
    }
    attributes = {"epsilon": 1e-5} if "AddNorm" in operator else {}
    with pytest.raises(Exception, match="too many axes"):
        kernel(operator, *inputs[operator], **attributes)


def test_products_of_no_tokens(kernel: Run, random: np.random.Generator, products: Path, tmp_path: Path) -> None:
    nothing = np.zeros((2, 0, 64), np.uint8)
    ready = packed(products, tmp_path, weights(random, 64, 64))
    operands = (ready.weights, ready.notes, np.ones(64, np.float32))
    (found,) = kernel("Linear", nothing, SCALE, ZERO, *operands)
    assert found.shape == (2, 0, 64)
    quantised, steps = kernel("GatedQuantize", nothing, SCALE, ZERO, *operands, *operands, FLOOR, LEVELS, ZERO)
    assert (quantised.shape, steps.shape) == ((2, 0, 64), (2, 0, 1))
    none, gain = np.zeros((2, 0, 64), np.float32), np.ones(64, np.float32)
    rest = (np.zeros((2, 0, 1), np.float32), gain, SCALE, ZERO)
    added, quantised = kernel("LinearAddNormQuantize", nothing, SCALE, ZERO, *operands, none, *rest, epsilon=1e-5)
    assert added.shape == quantised.shape == (2, 0, 64)


def test_products_of_sizes_that_do_not_belong_together_are_an_error(
    kernel: Run, random: np.random.Generator, products: Path, tmp_path: Path
) -> None:
    given, plain, scales = np.zeros((1, 2, 64), np.uint8), weights(random, 64, 128), np.ones(128, np.float32)
    ready, half = packed(products, tmp_path, plain), packed(products, tmp_path, plain[:, :64].copy())
    whole = (ready.weights, ready.notes, scales)
    kernel("Linear", given, SCALE, ZERO, *whole)
    for operands in (
        (given, SCALE, ZERO, plain[:, :100], ready.notes[:100], scales[:100]),
        (given, SCALE, ZERO, ready.weights[:32], ready.notes, scales),
        (given[:, :, :32], SCALE, ZERO, *whole),
        (given, SCALE, ZERO, ready.weights, ready.notes[:-1], scales),
        (given, SCALE, ZERO, ready.weights, ready.notes, scales[:64]),
        (given, scales, ZERO, *whole),
    ):
        with pytest.raises(Exception, match="product: "):
            kernel("Linear", *operands)
    steps, residual = np.ones((1, 2, 1), np.float32), np.zeros((1, 2, 128), np.float32)
    for wrong, message in (
        ((residual[:, :, :64], steps, scales), "LinearAddNormQuantize: "),
        ((residual[:, :1], steps, scales), "LinearAddNormQuantize: "),
        ((residual, steps[:, :1], scales), "LinearAddNormQuantize: "),
        ((residual[0], steps, scales), "LinearAddNormQuantize: "),
        ((residual, steps.reshape(2, 1, 1), scales), "LinearAddNormQuantize: "),
        ((residual, steps, scales[:64]), "LinearAddNormQuantize: "),
        ((residual, steps, scales[:1]), "norm: "),
    ):
        with pytest.raises(Exception, match=message):
            kernel("LinearAddNormQuantize", given, SCALE, ZERO, *whole, *wrong, SCALE, ZERO, epsilon=1e-5)
    for scale in (scales[:1], scales[:3], scales[:128].reshape(1, 128), scales[:2], scales[:2].reshape(2, 1, 1)):
        with pytest.raises(Exception, match="product: a scale"):
            kernel("GatedQuantize", given, scale, ZERO, *whole, *whole, FLOOR, LEVELS, ZERO)
    with pytest.raises(Exception, match="product: a scale"):
        kernel("Linear", given, scales[:2].reshape(1, 2, 1), ZERO, *whole)
    narrow = (half.weights, half.notes, scales[:64])
    with pytest.raises(Exception, match="GatedQuantize: "):
        kernel("GatedQuantize", given, SCALE, ZERO, *whole, *narrow, FLOOR, LEVELS, ZERO)
