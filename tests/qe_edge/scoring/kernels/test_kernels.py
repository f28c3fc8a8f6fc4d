"""Each kernel against the same formula in float64, and against sizes that do not belong together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qe_edge.scoring.kernels.library import SWITCH, library
from qe_edge.scoring.kernels.packing import Packed, Place, Unit, Weights, pack, unit_of_bf16
from tests.qe_edge.scoring.kernels.conftest import Array, Run

FLOOR, LEVELS, ZERO = np.array(1e-6, np.float32), np.array(127, np.float32), np.array(128, np.uint8)


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


@pytest.mark.parametrize("shape", [(1, 1, 16), (3, 5, 64), (2, 7, 576)])
def test_sum_norm_and_step(kernel: Run, random: np.random.Generator, shape: tuple[int, ...]) -> None:
    residual, product, gain = floats(random, *shape), floats(random, *shape), floats(random, shape[-1])
    scales = np.abs(floats(random, *shape[:-1], 1))
    added, quantised = kernel("AddNormQuantize", residual, product, scales, gain, np.float32(0.03), ZERO, epsilon=1e-5)
    exact: Array = residual.astype(float) + product.astype(float) * scales
    np.testing.assert_allclose(added, exact, atol=1e-5)
    normed = exact / np.sqrt((exact**2).mean(-1, keepdims=True) + 1e-5) * gain
    assert_quantised(quantised, np.clip(np.rint(normed / np.float32(0.03)) + 128, 0, 255))


@pytest.mark.parametrize("width", [16, 64, 80])
def test_steps_too_small_for_a_byte_end_at_its_ends(kernel: Run, random: np.random.Generator, width: int) -> None:
    values = floats(random, 1, 3, width)
    values[0, 2, 5] = np.nan  # of which no token but its own knows
    rest = (np.ones((1, 3, 1), np.float32), np.ones(width, np.float32), np.float32(1e-12), ZERO)
    _, quantised = kernel("AddNormQuantize", values, np.zeros_like(values), *rest, epsilon=1e-5)
    np.testing.assert_array_equal(quantised[0, :2], np.where(values[0, :2] > 0, 255, 0))
    assert (quantised[0, 2] == 0).all()


@pytest.mark.parametrize("shape", [(1, 1, 16), (3, 5, 64), (2, 7, 1536)])
@pytest.mark.parametrize("size", [1.0, 60.0])
def test_gated_activation(kernel: Run, random: np.random.Generator, shape: tuple[int, ...], size: float) -> None:
    gate, up = floats(random, *shape) * np.float32(size), floats(random, *shape)
    quantised, scales = kernel("SwigluQuantize", gate, up, FLOOR, LEVELS, ZERO)
    wide = gate.astype(float)
    integers, exact = token_steps(wide / (1 + np.exp(-wide)) * up)
    np.testing.assert_allclose(scales, exact, rtol=1e-5)
    assert_quantised(quantised, integers)


def test_tokens_of_zeros_have_the_smallest_step(kernel: Run) -> None:
    nothing = np.zeros((1, 2, 32), np.float32)
    quantised, scales = kernel("SwigluQuantize", nothing, nothing, FLOOR, LEVELS, ZERO)
    assert (quantised == 128).all()
    assert (scales == FLOOR / LEVELS).all()


def turned(values: Array, cosine: Array, sine: Array) -> Array:
    """[B, N, S, D] by its positions."""
    first, second = np.split(values.astype(float), 2, axis=-1)
    cosine, sine = cosine[:, None], sine[:, None]
    return np.concatenate([first * cosine - second * sine, second * cosine + first * sine], -1)


def attention_inputs(
    random: np.random.Generator, batch: int, length: int, past: int, heads: int, groups: int, head: int
) -> list[Array]:
    angles = np.arange(past, past + length)[None, :, None] / 10.0 ** (np.arange(head // 2) / 8)
    angles = np.broadcast_to(angles, (batch, length, head // 2)).astype(np.float32)
    mask = np.arange(past + length)[None, :] <= past + np.arange(length)[:, None]
    return [
        floats(random, batch, length, heads * head),
        floats(random, batch, length, groups * head) * np.float32(2),
        floats(random, batch, length, groups * head),
        np.cos(angles),
        np.sin(angles),
        floats(random, 1, groups, past, head),
        floats(random, 1, groups, past, head),
        mask[None, None],
        FLOOR,
        LEVELS,
        ZERO,
        np.array([True]),
    ]


SIZES = [
    (1, 1, 0, 1, 1, 32),
    (2, 5, 3, 4, 2, 32),
    (2, 40, 51, 9, 3, 64),
    (1, 17, 16, 2, 2, 128),
    (3, 33, 0, 4, 1, 256),
    (1, 150, 300, 3, 1, 64),
]


def in_halves() -> bool:
    """Whether attention multiplies in bf16."""
    found = library()
    return found is not None and unit_of_bf16(found) is not Unit.NONE


@pytest.mark.usefixtures("unit")
@pytest.mark.parametrize(("batch", "length", "past", "heads", "groups", "head"), SIZES)
def test_attention(
    kernel: Run,
    random: np.random.Generator,
    batch: int,
    length: int,
    past: int,
    heads: int,
    groups: int,
    head: int,
) -> None:
    inputs = attention_inputs(random, batch, length, past, heads, groups, head)
    found = kernel("AttendQuantize", *inputs, heads=heads, groups=groups, scale=head**-0.5)
    by_head = [a.reshape(batch, length, -1, head).transpose(0, 2, 1, 3) for a in inputs[:3]]
    query, key = (turned(values, inputs[3], inputs[4]) for values in by_head[:2])
    before = [np.broadcast_to(values, (batch, *values.shape[1:])) for values in inputs[5:7]]
    key = np.concatenate([before[0], key], 2)
    value = np.concatenate([before[1], by_head[2]], 2)
    np.testing.assert_allclose(found[2], key, atol=1e-5)
    np.testing.assert_array_equal(found[3], value.astype(np.float32))
    shared = heads // groups
    logits = query @ np.repeat(key, shared, 1).transpose(0, 1, 3, 2) * head**-0.5
    weights = np.exp(np.where(inputs[7], logits - logits.max(-1, keepdims=True), -np.inf))
    mixed = weights / weights.sum(-1, keepdims=True) @ np.repeat(value, shared, 1)
    integers, scales = token_steps(mixed.transpose(0, 2, 1, 3).reshape(batch, length, -1))
    if not in_halves():
        np.testing.assert_allclose(found[1], scales, rtol=2e-5)
        assert_quantised(found[0], integers)
    else:
        difference = np.abs((found[0] - 128.0) * found[1] - (integers - 128) * scales) / scales
        assert difference.mean() < 0.5
        assert difference.max() < 4  # steps of 127; bf16 keeps 8 bits of a number


def test_keys_and_values_are_left_out_unless_asked_for(kernel: Run, random: np.random.Generator) -> None:
    inputs = attention_inputs(random, 2, 5, 3, 4, 2, 32)
    asked = kernel("AttendQuantize", *inputs, heads=4, groups=2, scale=0.2)
    inputs[-1] = np.array([False])
    left_out = kernel("AttendQuantize", *inputs, heads=4, groups=2, scale=0.2)
    np.testing.assert_array_equal(asked[0], left_out[0])
    assert [a.shape for a in left_out[2:]] == [(0, 2, 8, 32)] * 2


@pytest.mark.usefixtures("unit")
def test_a_row_does_not_depend_on_its_neighbours_nor_on_padding(kernel: Run, random: np.random.Generator) -> None:
    together = attention_inputs(random, 3, 40, 20, 6, 2, 32)
    alone = [*(a[1:2, :23] for a in together[:5]), *together[5:7], together[7][:, :, :23, :43], *together[8:]]
    found, single = (kernel("AttendQuantize", *a, heads=6, groups=2, scale=0.2) for a in (together, alone))
    np.testing.assert_array_equal(found[0][1:2, :23], single[0])
    np.testing.assert_array_equal(found[1][1:2, :23], single[1])


@pytest.mark.usefixtures("unit")
def test_a_source_that_is_shared_changes_nothing(kernel: Run, random: np.random.Generator) -> None:
    whole = attention_inputs(random, 1, 40, 20, 6, 2, 32)
    found = kernel("AttendQuantize", *whole, heads=6, groups=2, scale=0.2)
    rest = [a[:, 13:] for a in whole[:5]]
    rest += [found[2][:, :, :33], found[3][:, :, :33], whole[7][:, :, 13:], *whole[8:]]
    after = kernel("AttendQuantize", *rest, heads=6, groups=2, scale=0.2)
    np.testing.assert_array_equal(found[0][:, 13:], after[0])
    np.testing.assert_array_equal(found[1][:, 13:], after[1])


BROKEN_ATTENTION = {
    "a short query": (0, np.zeros((2, 5, 96), np.float32)),
    "a query of two axes": (0, np.zeros((10, 128), np.float32)),
    "fewer keys": (1, np.zeros((2, 4, 64), np.float32)),
    "fewer values": (2, np.zeros((1, 5, 64), np.float32)),
    "positions of one row": (3, np.zeros((1, 5, 16), np.float32)),
    "a past of other groups": (5, np.zeros((1, 3, 3, 32), np.float32)),
    "a past of three axes": (5, np.zeros((2, 3, 32), np.float32)),
    "past values of another length": (6, np.zeros((1, 2, 4, 32), np.float32)),
    "a short mask": (7, np.ones((1, 1, 5, 7), bool)),
    "a mask that hides all": (7, np.zeros((1, 1, 5, 8), bool)),
    "a mask with a gap": (7, np.array([[[[True, False] + [True] * 6] * 5]])),
    "no levels": (9, np.zeros(0, np.float32)),
}


@pytest.mark.parametrize(("place", "instead"), BROKEN_ATTENTION.values(), ids=BROKEN_ATTENTION)
def test_attention_of_sizes_that_do_not_belong_together_is_an_error(
    kernel: Run, random: np.random.Generator, place: int, instead: Array
) -> None:
    inputs = attention_inputs(random, 2, 5, 3, 4, 2, 32)
    inputs[place] = instead
    with pytest.raises(Exception, match="AttendQuantize: "):
        kernel("AttendQuantize", *inputs, heads=4, groups=2, scale=0.2)


@pytest.mark.parametrize(("heads", "groups"), [(0, 2), (4, 0), (-4, 2), (4, 3), (8, 2), (1 << 40, 1 << 40)])
def test_heads_that_are_not_those_of_the_inputs_are_an_error(
    kernel: Run, random: np.random.Generator, heads: int, groups: int
) -> None:
    with pytest.raises(Exception, match="AttendQuantize: "):
        kernel("AttendQuantize", *attention_inputs(random, 2, 5, 3, 4, 2, 32), heads=heads, groups=groups, scale=0.2)


def test_other_kernels_refuse_sizes_that_do_not_belong_together(kernel: Run, random: np.random.Generator) -> None:
    row, other, odd = floats(random, 1, 2, 32), floats(random, 1, 3, 32), floats(random, 1, 2, 24)
    scales = np.ones((1, 2, 1), np.float32)
    for gate, up in ((row, other), (odd, odd), (row[0, 0, 0], row[0, 0, 0])):
        with pytest.raises(Exception, match="SwigluQuantize: "):
            kernel("SwigluQuantize", gate, up, FLOOR, LEVELS, ZERO)
    for residual, product, gain in ((row, other, row[0, 0]), (other, row, row[0, 0]), (row, row, odd[0, 0])):
        with pytest.raises(Exception, match=r"AddNormQuantize: |norm: "):
            kernel("AddNormQuantize", residual, product, scales, gain, np.float32(1), ZERO, epsilon=1e-5)


@pytest.mark.parametrize("place", range(12))
def test_attention_of_more_axes_than_a_tensor_has_is_an_error(
    kernel: Run, random: np.random.Generator, place: int
) -> None:
    inputs = attention_inputs(random, 2, 5, 3, 4, 2, 32)
    inputs[place] = inputs[place].reshape(*[1] * 60, *inputs[place].shape)
    with pytest.raises(Exception, match="too many axes"):
        kernel("AttendQuantize", *inputs, heads=4, groups=2, scale=0.2)


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
