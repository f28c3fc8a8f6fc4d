"""What a reader of the figures has to know: rows left out, figures that are undefined, language pairs pooled."""

from __future__ import annotations

from collections.abc import Iterator

from qe_edge.evaluation.comparison import LEAST_ROWS, Evaluation, Figures, Group
from qe_edge.evaluation.grouping import Grouping
from qe_edge.evaluation.reading import EMPTY
from qe_edge.metrics import CORRELATIONS
from qe_edge.table.columns import some_of

FEW_ROWS = 30
"""below this, a percentile interval is more often than not too narrow"""


def caveats(evaluation: Evaluation, grouping: Grouping) -> list[str]:
    """One line for each thing."""
    by_group = [line for group in evaluation.groups for line in _of_group(group, evaluation.gold)]
    return [*_pooled(grouping), *by_group, *_fewer_groups(evaluation), *_doubtful_intervals(evaluation)]


def _pooled(grouping: Grouping) -> Iterator[str]:
    """Groups that mix language pairs: the order of their levels counts as agreement."""
    pairs = 0 if grouping.pairs is None else _most_kinds(grouping.names, grouping.pairs)
    files = _most_kinds(grouping.names, grouping.files)
    if pairs > 1:
        yield (
            f"{pairs} language pairs are pooled in one group; their levels differ, which distorts correlations, "
            f"usually upwards; leave out {'--pool' if grouping.by is None else '--by'} to evaluate each pair"
        )
    elif grouping.pairs is None and files > 1:
        yield (
            f"rows of {files} files are pooled in one group; if they are language pairs, their levels differ, "
            "which distorts correlations, usually upwards"
        )


def _most_kinds(names: list[str], kinds: list[str]) -> int:
    """The largest number of different kinds of rows in a group."""
    found: dict[str, set[str]] = {}
    for name, kind in zip(names, kinds, strict=True):
        if kind != EMPTY:
            found.setdefault(name, set()).add(kind)
    return max(map(len, found.values()), default=0)


def _of_group(group: Group, gold: str) -> Iterator[str]:
    if group.rows < group.read:
        reasons = ", ".join(f"{count} without {column}" for column, count in group.without.items() if count)
        yield f"{group.name}: {group.read - group.rows} of {group.read} rows left out: {reasons}"
    if not group.scores:
        yield (
            f"{group.name}: not evaluated and not in the macro average; "
            f"rows that can be compared: {group.rows}, needed: {LEAST_ROWS}"
        )
        return
    for column in group.constant:
        what = "all correlations are" if column == gold else f"correlations of {column} are"
        yield f"{group.name}: column {column} has the same value in all rows; {what} undefined"


def _fewer_groups(evaluation: Evaluation) -> Iterator[str]:
    """Macro averages of correlations that leave out groups in which they are undefined."""
    used = sum(bool(group.scores) for group in evaluation.groups)
    for score, figures in evaluation.macro.items():
        averaged = min(figures[name].groups for name in CORRELATIONS)
        if averaged < used > 1:
            yield f"macro average: correlations of {score} are over {averaged} of {used} groups"


def _doubtful_intervals(evaluation: Evaluation) -> Iterator[str]:
    used = [group for group in evaluation.groups if group.scores]
    few = [f"{group.name} ({group.rows})" for group in used if group.rows < FEW_ROWS]
    if few:
        yield f"fewer than {FEW_ROWS} rows in {some_of(few, ', ')}: intervals are unreliable"
    undefined = {group.name: max(map(_undefined, group.scores.values())) for group in used}
    partly = [f"{name} ({count})" for name, count in undefined.items() if count]
    if partly:
        yield (
            f"of {evaluation.samples} resamples, some had a constant column in {some_of(partly, ', ')}; "
            "the intervals of correlations leave them out"
        )


def _undefined(figures: Figures) -> int:
    """Resamples on which a correlation was undefined that is defined on the rows as they are."""
    return max(figures[name].undefined if figures[name].value is not None else 0 for name in CORRELATIONS)
