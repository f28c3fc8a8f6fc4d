"""The memory limit of a GPU is read in the units that people write, or refused with its value."""

from __future__ import annotations

import pytest

from qe_edge.commands.loading import read_limit
from qe_edge.errors import UsageError


@pytest.mark.parametrize(
    ("size", "limit"),
    [
        ("4G", 4 << 30),
        ("4g", 4 << 30),
        ("3.5 GiB", 7 << 29),
        ("800M", 800 << 20),
        ("800MB", 800 << 20),
        ("512k", 512 << 10),
        ("1073741824", 1 << 30),
    ],
)
def test_sizes_are_powers_of_1024(size: str, limit: int) -> None:
    assert read_limit(size, "cuda") == read_limit(size, "auto") == limit


def test_no_size_is_no_limit() -> None:
    assert read_limit(None, "cpu") is None


@pytest.mark.parametrize(
    "size", ["", "G", "0", "0.0000001K", "-1G", "4T", "four", "4G8", "4 G B", "1e9", "nan", "9" * 400, "400000G"]
)
def test_what_is_no_size_is_refused_with_its_value(size: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_limit(size, "cuda")
    assert str(caught.value) == f"--gpu-mem-limit {size}: not a size; write it as 4G or 800M"


def test_a_limit_without_a_gpu_is_refused() -> None:
    with pytest.raises(UsageError, match="--device cpu takes no memory of a GPU"):
        read_limit("4G", "cpu")
