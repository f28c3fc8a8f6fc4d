"""The kernel of attention against the same formula in float64, and against sizes that do not belong together."""

from __future__ import annotations

import numpy as np
import pytest

from qe_edge.scoring.kernels.library import library
from qe_edge.scoring.kernels.packing import Unit, unit_of_bf16
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


@pytest.mark.parametrize("place", range(12))
def test_attention_of_more_axes_than_a_tensor_has_is_an_error(
    kernel: Run, random: np.random.Generator, place: int
) -> None:
    inputs = attention_inputs(random, 2, 5, 3, 4, 2, 32)
    inputs[place] = inputs[place].reshape(*[1] * 60, *inputs[place].shape)
    with pytest.raises(Exception, match="too many axes"):
        kernel("AttendQuantize", *inputs, heads=4, groups=2, scale=0.2)
