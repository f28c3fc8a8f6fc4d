"""Rows of tables whose cells are found by name, as the fields of a JSON object or the columns of a Parquet file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from qe_edge.errors import InputError
from qe_edge.rows import Row
from qe_edge.table.columns import Columns
from qe_edge.table.languages import PairRule


def needed_cells(names: Sequence[str], columns: Columns) -> tuple[list[str], Columns]:
    """The names of the cells that are read, texts before languages, and the positions of `columns` among them."""
    texts = len(columns.texts)
    needed = [names[at] for at in (*columns.texts, *columns.languages)]
    return needed, replace(columns, texts=tuple(range(texts)), languages=tuple(range(texts, len(needed))))


@dataclass(frozen=True)
class NamedCells:
    """How the cells that are read become a row."""

    needed: Sequence[str]
    """their names, in the order of `columns`"""
    columns: Columns
    """positions in `needed`"""
    rule: PairRule

    def row(self, cells: Sequence[str] | str) -> Row:
        """The row of these cells, or of why there are none."""
        if isinstance(cells, str):
            return Row((), fault=cells)
        try:
            codes = self.rule.pair(cells)
        except InputError as error:
            return Row((), fault=str(error))
        return Row(tuple(cells[at] for at in self.columns.texts), *codes)
