"""What a table can be written to."""

from __future__ import annotations

import pytest

from qe_edge.errors import UsageError
from qe_edge.table.formats import check_output


@pytest.mark.parametrize("output", [None, "-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/3"])
def test_parquet_is_not_written_to_what_is_already_open(output: str | None) -> None:
    with pytest.raises(UsageError, match=r"Parquet can be written to a file only; give one, as -o scored\.parquet"):
        check_output("in.parquet", output)
    check_output("in.tsv", output)
