"""The rows that every runtime scores: real ones, tokenised as the embedded bundle does."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from benchmarks.gpu.rows import body_tokens
from qe_edge.bundle import EMBEDDED_BUNDLE, open_bundle
from qe_edge.table.table import open_table

SAMPLE = Path(__file__).parents[2] / "examples" / "mlqe-pe-sample.tsv"
ROWS = 4
"""which are all of the first language pair"""


def sample_rows() -> tuple[list[int], list[list[int]]]:
    """Token ids of the prefix of a language pair and of the bodies of its rows."""
    with open_table(str(SAMPLE)) as table:
        rows = [item.row for item in islice(table.items, ROWS)]
    return body_tokens(open_bundle(EMBEDDED_BUNDLE), rows)
