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
    check_output(None, output)


@pytest.mark.parametrize("output", ["out.jsonl", "out.ndjson", "out.PARQUET"])
def test_scores_of_aligned_texts_and_of_tsv_go_to_no_name_of_another_kind(output: str) -> None:
    with pytest.raises(UsageError, match=f"-o {output}: the output is text, a score a line; .* as scores.txt"):
        check_output(None, output)
    with pytest.raises(UsageError, match=f"-o {output}: the output is TSV as the input is"):
        check_output("in.tsv", output)


@pytest.mark.parametrize("path", [None, "in.tsv"])
def test_no_output_has_the_name_of_a_compressed_file(path: str | None) -> None:
    with pytest.raises(UsageError, match=r"-o out\.txt\.gz: the output is not compressed; .* without \.gz"):
        check_output(path, "out.txt.gz")
    check_output(path, "out.txt")
