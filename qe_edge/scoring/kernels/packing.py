"""Weights of products in the order in which kernels take them; ONNX Runtime gets them in place of those of the file."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ALIGNMENT = 64
"""bytes of a vector, of a row of a tile, and of a line of the processor's cache"""


@dataclass(frozen=True)
class Place:
    """Where the int8 weights [inputs, channels] of a product lie: in a file beside the graph, from an offset on."""

    file: str
    offset: int
    shape: tuple[int, int]


@dataclass(frozen=True)
class Packed:
    """What a kernel takes of a product."""

    weights: NDArray[np.int8]
    """as large as before, in another order (`pack` in source/products.h)"""
    sums: NDArray[np.int32]
    """of the weights of each channel"""


class Unit(IntEnum):
    """What of a processor products of int8 run on."""

    NONE = 0
    """nothing that the kernels have"""
    DOTS = 1
    """AVX512-VNNI"""
    TILES = 2
    """AMX"""


def unit(library: Path) -> Unit:
    """The best that this machine has, lets this process use, and the user did not switch off."""
    return Unit(_loaded(library).qe_edge_unit())


def pack(library: Path, folder: Path, places: Mapping[bytes, Place]) -> dict[bytes, Packed]:
    """The packed weights of products by their names, all in one piece of memory.

    Raises OSError for a file that cannot be read, ValueError for one that is shorter than a place says.
    """
    room = np.empty(sum(math.prod(place.shape) for place in places.values()) + ALIGNMENT, np.int8)
    start = -room.ctypes.data % ALIGNMENT
    packed = {}
    for name, place in places.items():
        weights = np.fromfile(folder / place.file, np.int8, math.prod(place.shape), offset=place.offset)
        there = room[start : start + math.prod(place.shape)].reshape(place.shape)
        sums = np.empty(place.shape[1], np.int32)
        weights = weights.reshape(place.shape)  # fails for too few of them
        _loaded(library).qe_edge_pack(_pointer(weights), *place.shape, _pointer(there), _pointer(sums))
        packed[name] = Packed(there, sums)
        start += there.size
    return packed


def _pointer(array: NDArray[np.int8] | NDArray[np.int32]) -> ctypes.c_void_p:
    return array.ctypes.data_as(ctypes.c_void_p)


@cache
def _loaded(library: Path) -> ctypes.CDLL:
    found = ctypes.CDLL(str(library))
    size, array = ctypes.c_int64, ctypes.c_void_p
    found.qe_edge_pack.argtypes = [array, size, size, array, array]
    found.qe_edge_pack.restype = None
    return found
