"""Weights of products in the order in which kernels take them; ONNX Runtime gets them in place of those of the file."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ALIGNMENT = 64
"""bytes of a vector, of a row of a tile, and of a line of the processor's cache"""


@dataclass(frozen=True)
class Place:
    """Where numbers lie: in a file beside the graph, from an offset on."""

    file: str
    offset: int
    shape: tuple[int, int]

    def read(self, folder: Path, kind: type[np.generic], held_in_one: int = 1) -> NDArray[Any]:
        """The numbers, or the bytes that hold several of them.

        Raises OSError for a file that cannot be read, ValueError for one that is too short.
        """
        rows, columns = self.shape[0], self.shape[1] // held_in_one
        return np.fromfile(folder / self.file, kind, rows * columns, offset=self.offset).reshape(rows, columns)


@dataclass(frozen=True)
class Weights:
    """Where the int8 weights [K, N] of a product lie, K inputs and N channels."""

    integers: Place
    expanded: tuple[Place, Place] | None = None
    """of weights in 4 bits: divisors in float16 and zero points in int8 of each 32 inputs, [K / 32, N]"""

    @property
    def shape(self) -> tuple[int, int]:
        return self.integers.shape

    def read(self, library: Path, folder: Path) -> NDArray[np.int8]:
        """The weights. Raises as `Place.read`."""
        if self.expanded is None:
            return self.integers.read(folder, np.int8)
        divisors, zeros = self.expanded
        fours = self.integers.read(folder, np.uint8, held_in_one=2)
        steps, moved = divisors.read(folder, np.float16).astype(np.float32), zeros.read(folder, np.int8)
        found = np.empty(self.shape, np.int8)
        _loaded(library).qe_edge_expand(*map(_pointer, (fours, steps, moved)), *self.shape, _pointer(found))
        return found


@dataclass(frozen=True)
class Packed:
    """What a kernel takes of a product."""

    weights: NDArray[np.int8]
    """as large as before, in another order (source/weights.h, source/pair_order.h)"""
    notes: NDArray[np.int32]
    """sums of the weights of each channel, and what else the unit needs to know of them (source/products.h)"""


class Unit(IntEnum):
    """What of a processor products run on."""

    NONE = 0
    """nothing that the kernels have: int8 is left to ONNX Runtime, attention is in float32"""
    DOTS = 1
    """AVX512-VNNI or AVX-VNNI for int8, AVX512-BF16 for bf16"""
    TILES = 2
    """AMX"""
    PAIRS = 3
    """AVX2, for int8"""


def unit_of_int8(library: Path) -> Unit:
    """The best for products of int8 that this machine has, lets this process use, and the user did not switch off."""
    return Unit(_loaded(library).qe_edge_unit_of_bytes())


def unit_of_bf16(library: Path) -> Unit:
    """The same for attention's products."""
    return Unit(_loaded(library).qe_edge_unit_of_halves())


def pack(library: Path, folder: Path, weights: Mapping[bytes, Weights]) -> dict[bytes, Packed]:
    """The packed weights of products by their names, all in one piece of memory.

    Raises as `Place.read`, and MemoryError.
    """
    room = np.empty(sum(math.prod(one.shape) for one in weights.values()) + ALIGNMENT, np.int8)
    start = -room.ctypes.data % ALIGNMENT
    packed = {}
    for name, one in weights.items():
        plain = one.read(library, folder)
        there = room[start : start + plain.size].reshape(one.shape)
        notes = np.empty(_loaded(library).qe_edge_count_notes(*one.shape), np.int32)
        if not _loaded(library).qe_edge_pack(_pointer(plain), *one.shape, _pointer(there), _pointer(notes)):
            raise MemoryError("not enough memory to bring weights into their order")
        packed[name] = Packed(there, notes)
        start += there.size
    return packed


def _pointer(array: NDArray[Any]) -> ctypes.c_void_p:
    return array.ctypes.data_as(ctypes.c_void_p)


@cache
def _loaded(library: Path) -> ctypes.CDLL:
    found = ctypes.CDLL(str(library))
    size, array = ctypes.c_int64, ctypes.c_void_p
    found.qe_edge_count_notes.argtypes = [size, size]
    found.qe_edge_count_notes.restype = size
    found.qe_edge_pack.argtypes = [array, size, size, array, array]
    found.qe_edge_pack.restype = ctypes.c_bool
    found.qe_edge_expand.argtypes = [array, array, array, size, size, array]
    found.qe_edge_expand.restype = None
    return found
