"""A reader of protobuf's wire format, as far as ONNX needs it: the runtime has neither onnx nor protobuf.

A message is a sequence of fields; a field is a tag, number << 3 | wire type, and its content: a varint (type 0: seven
bits a byte, lowest first, the high bit set in all bytes but the last), 8 bytes (1), a length and as many bytes (2), or
4 bytes (5). Source: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import TypeVar

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
SIZES = {FIXED64: 8, FIXED32: 4}
LONGEST_VARINT = 10
"""bytes of a varint of 64 bits"""

_Value = TypeVar("_Value", int, bytes)


class WireError(ValueError):
    """Bytes that are not the expected message. `str(error)` says what is wrong, without the file."""


def read_fields(data: bytes, fields: Mapping[int, str] | None) -> Iterator[tuple[int, int | bytes, bytes]]:
    """Number, value and the bytes of each field of a message, in order. fields and errors as for `Message`."""
    position, end = 0, len(data)
    while position < end:
        start = position
        tag, position = _varint(data, position)
        number, wire_type = tag >> 3, tag & 7
        refused = "" if fields is None else fields.get(number, f"unexpected field {number}")
        if refused:
            raise WireError(f"holds {refused}")
        if wire_type == VARINT:
            value, position = _varint(data, position)
            yield number, value, data[start:position]
            continue
        if wire_type == BYTES:
            length, position = _varint(data, position)
        elif wire_type in SIZES:
            length = SIZES[wire_type]
        else:
            raise WireError(f"wire type {wire_type} in field {number} is not known")
        if length > end - position:
            raise WireError(f"ends inside field {number}")
        position += length
        yield number, data[position - length : position], data[start:position]


class Message:
    """The fields of one message: whole numbers, and everything else as bytes.

    fields: every number that may occur -> "", or in words what the field holds that is refused; None where any may.
    Raises WireError for a refused field, for any other number and for bytes that are no message.
    """

    def __init__(self, data: bytes, fields: Mapping[int, str] | None) -> None:
        self._numbers: defaultdict[int, list[int]] = defaultdict(list)
        self._bytes: defaultdict[int, list[bytes]] = defaultdict(list)
        for number, value, _ in read_fields(data, fields):
            if isinstance(value, int):
                self._numbers[number].append(value)
            else:
                self._bytes[number].append(value)

    def all_bytes(self, number: int) -> list[bytes]:
        """Every value of a repeated field of texts, bytes or messages."""
        if number in self._numbers:
            raise WireError(f"holds a number in field {number}")
        return self._bytes.get(number, [])

    def all_numbers(self, number: int) -> list[int]:
        """Every value of a repeated field of whole numbers, unsigned: -1 is 2^64 - 1."""
        if number in self._bytes:
            raise WireError(f"holds no number in field {number}")
        return self._numbers.get(number, [])

    def one_bytes(self, number: int) -> bytes:
        """The value of a field that occurs at most once; empty if it does not.

        Raises WireError when it occurs again: protobuf would take the last value, and merge messages.
        """
        return _only(number, self.all_bytes(number), b"")

    def one_number(self, number: int) -> int:
        """The same for a number; 0 if it does not occur."""
        return _only(number, self.all_numbers(number), 0)


def _only(number: int, values: list[_Value], otherwise: _Value) -> _Value:
    if len(values) > 1:
        raise WireError(f"holds field {number} {len(values)} times")
    return values[0] if values else otherwise


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """The number that begins at a position, and the position after it."""
    if position < len(data) and data[position] < 0x80:  # most numbers have one byte
        return data[position], position + 1
    value = 0
    for index, byte in enumerate(data[position : position + LONGEST_VARINT]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            if value >> 64:
                break
            return value, position + index + 1
    raise WireError("holds a number that does not end")
