"""Tables made in the test."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest

from qe_edge.evaluation.comparison import Evaluation, evaluate
from qe_edge.evaluation.grouping import Grouping
from qe_edge.evaluation.reading import ScoreTable
from qe_edge.table.quoting import Quoting

Columns = Mapping[str, Sequence[float]]
Evaluate = Callable[..., Evaluation]


@pytest.fixture
def evaluated() -> Evaluate:
    """Evaluate groups of columns: the first column is the human score, the others are predicted."""

    def run(groups: Mapping[str, Columns], samples: int = 200, seed: int = 0) -> Evaluation:
        names = [name for name, columns in groups.items() for _ in next(iter(columns.values()))]
        wanted = list(next(iter(groups.values())))
        numbers = {column: np.concatenate([group[column] for group in groups.values()]) for column in wanted}
        table = ScoreTable("t.tsv", Quoting.NONE, len(names), numbers, {})
        grouping = Grouping("lp", names, names, ["t.tsv"] * len(names))
        return evaluate([table], grouping, wanted[0], wanted[1:], samples, seed)

    return run
