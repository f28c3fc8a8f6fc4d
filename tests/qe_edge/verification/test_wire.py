"""The wire format, on bytes written by hand."""

from __future__ import annotations

import pytest

from qe_edge.verification.wire import Message, WireError

FIELDS = {1: "", 2: "", 3: "", 4: "a secret"}


def test_numbers_texts_and_fixed_sizes_are_told_apart() -> None:
    # field 1: 150, as in protobuf's documentation; field 2: "hi"; field 3: 4 bytes; field 1 again: 1
    message = Message(bytes.fromhex("089601 12026869 1d0000803f 0801".replace(" ", "")), FIELDS)

    assert message.all_numbers(1) == [150, 1]
    assert message.one_bytes(2) == b"hi"
    assert message.all_bytes(3) == [bytes.fromhex("0000803f")]
    assert message.one_number(4) == 0
    assert message.one_bytes(4) == b""


def test_a_negative_number_is_read_as_unsigned() -> None:
    assert Message(b"\x08" + b"\xff" * 9 + b"\x01", FIELDS).one_number(1) == 2**64 - 1


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("08", "holds a number that does not end"),
        ("0896", "holds a number that does not end"),
        ("08" + "ff" * 10 + "01", "holds a number that does not end"),
        ("08" + "ff" * 9 + "02", "holds a number that does not end"),  # 65 bits
        ("120368", "ends inside field 2"),
        ("12ffffffff0f", "ends inside field 2"),
        ("1d0000", "ends inside field 3"),
        ("0b", "wire type 3 in field 1 is not known"),  # a group begins
        ("2801", "holds unexpected field 5"),
        ("00", "holds unexpected field 0"),
        ("2201", "holds a secret"),
    ],
)
def test_what_is_no_such_message_is_refused(data: str, expected: str) -> None:
    with pytest.raises(WireError, match=f"^{expected}$"):
        Message(bytes.fromhex(data), FIELDS)


def test_a_field_of_the_other_kind_or_written_twice_is_refused() -> None:
    twice = Message(bytes.fromhex("08010802"), FIELDS)
    with pytest.raises(WireError, match="holds field 1 2 times"):
        twice.one_number(1)
    with pytest.raises(WireError, match="holds a number in field 1"):
        twice.all_bytes(1)
    with pytest.raises(WireError, match="holds no number in field 2"):
        Message(bytes.fromhex("12026869"), FIELDS).all_numbers(2)
