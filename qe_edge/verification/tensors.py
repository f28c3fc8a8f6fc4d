"""Constants of a graph: every tensor is as large as it says, and lies in the two files of the bundle.

Numbers stand as raw data in `model.onnx`, or in `model.onnx.data` at an offset. Both are held against the shape and
type of the tensor, so that nothing outside the files is read and nothing larger than them is allocated.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from types import MappingProxyType

from qe_edge.verification.onnx_fields import (
    DATA_LOCATION,
    DATA_TYPE,
    DIMS,
    ENTRY_FIELDS,
    ENTRY_KEY,
    ENTRY_VALUE,
    EXTERNAL,
    EXTERNAL_DATA,
    RAW_DATA,
    TENSOR_FIELDS,
    TENSOR_NAME,
)
from qe_edge.verification.refusal import shown
from qe_edge.verification.wire import Message, WireError

BITS = MappingProxyType({1: 32, 2: 8, 3: 8, 6: 32, 7: 64, 9: 8, 10: 16, 21: 4, 22: 4})
"""Bits of a number by data type: float32, uint8, int8, int32, int64, bool, float16, uint4, int4."""
INT64 = 7
SHORT = 32
"""most numbers of a tensor that is read as a list of sizes"""
LARGEST_RANK = 8
"""most dimensions of a tensor"""
PLACE = (b"location", b"offset", b"length")
"""what external data says, all of it and nothing else"""
DIGITS = 20
"""most digits of an offset or a length"""


@dataclass(frozen=True)
class Tensor:
    """One constant, verified. Construct it with `read_tensor`."""

    name: bytes
    shape: tuple[int, ...]
    outside: int
    """bytes in the weights file; 0 for a tensor in the graph"""
    integers: tuple[int, ...] | None
    """its numbers, where they are a short list of int64 in the graph"""

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


def read_tensor(data: bytes, weights_file: bytes, weights_bytes: int) -> Tensor:
    """A TensorProto, verified against the name and the size of the one file outside that it may lie in.

    Raises WireError naming the tensor and what is wrong with it.
    """
    message = Message(data, TENSOR_FIELDS)
    name = message.one_bytes(TENSOR_NAME)
    try:
        return _read(message, name, weights_file, weights_bytes)
    except WireError as error:
        raise WireError(f"tensor {shown(name.decode('utf-8', 'replace'))} {error}") from None


def _read(message: Message, name: bytes, weights_file: bytes, weights_bytes: int) -> Tensor:
    kind = message.one_number(DATA_TYPE)
    if kind not in BITS:
        raise WireError(f"has data type {kind}, which no bundle uses")
    dims = message.all_numbers(DIMS)
    if len(dims) > LARGEST_RANK or any(size >> 63 for size in dims):
        raise WireError(f"has the shape {shown(dims)}, more than {LARGEST_RANK} dimensions or negative ones")
    elements = math.prod(dims)
    size = (elements * BITS[kind] + 7) // 8
    entries, raw = message.all_bytes(EXTERNAL_DATA), message.one_bytes(RAW_DATA)
    if message.one_number(DATA_LOCATION) == EXTERNAL:
        if raw:
            raise WireError("has data both in the graph and outside")
        _check_place(entries, size, weights_file, weights_bytes)
        return Tensor(name, tuple(dims), size, None)
    if entries:
        raise WireError("names a file, but not as its place")
    if len(raw) != size:
        raise WireError(f"of shape {dims} has {len(raw)} bytes instead of {size}")
    is_list = kind == INT64 and elements <= SHORT
    return Tensor(name, tuple(dims), 0, struct.unpack(f"<{elements}q", raw) if is_list else None)


def _check_place(entries: list[bytes], size: int, weights_file: bytes, weights_bytes: int) -> None:
    place: dict[bytes, bytes] = {}
    for entry in entries:
        message = Message(entry, ENTRY_FIELDS)
        place[message.one_bytes(ENTRY_KEY)] = message.one_bytes(ENTRY_VALUE)
    if len(entries) != len(PLACE) or set(place) != set(PLACE):
        raise WireError("does not say where its data lies with location, offset and length, each once")
    location, offset, length = (place[key] for key in PLACE)
    if location != weights_file:
        raise WireError(f"lies in {shown(location.decode('utf-8', 'replace'))} instead of {weights_file.decode()}")
    first, count = _whole(offset), _whole(length)
    if count != size:
        raise WireError(f"has {count} bytes in {weights_file.decode()} instead of {size}")
    if first + count > weights_bytes:
        raise WireError(f"ends at byte {first + count} of {weights_file.decode()}, which has {weights_bytes}")


def _whole(text: bytes) -> int:
    if len(text) > DIGITS or not text.isdigit():
        raise WireError(f"has the offset or length {shown(text.decode('utf-8', 'replace'))}, which is no whole number")
    return int(text)
