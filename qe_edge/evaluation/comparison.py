"""Groups of rows -> agreement of every score column with the human scores, with bootstrap intervals.

Rows are resampled within each group, 95 % percentile intervals. All score columns of a group are measured on the same
rows and the same resamples, so that the difference of two columns has an interval of its own (paired bootstrap, Koehn
2004, "Statistical significance tests for machine translation evaluation").

Legend: G groups, S score columns, M measures, B resamples, n rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qe_edge.errors import InputError
from qe_edge.evaluation.grouping import Grouping
from qe_edge.evaluation.reading import ScoreTable
from qe_edge.metrics import MEASURES, FloatArray, bootstrap_draws, constant, interval

LEAST_ROWS = 3
"""rows a group must have; two rows always have a correlation of -1, 1 or none"""


@dataclass(frozen=True)
class Figure:
    """A measure with its interval."""

    value: float | None
    """None: undefined"""
    interval: tuple[float, float] | None
    groups: int
    """number of groups it is averaged over; 1 in a group"""
    undefined: int
    """resamples on which the measure was undefined, and which the interval leaves out"""


Figures = dict[str, Figure]
"""by measure"""


@dataclass(frozen=True)
class Group:
    """What one group of rows shows."""

    name: str
    read: int
    """rows in the tables"""
    rows: int
    """rows compared: those with a human score and every predicted score"""
    without: dict[str, int]
    """rows without a number, by column; a row can lack several"""
    tied: dict[str, float]
    """share of the rows compared that have their value in common with another row, by column"""
    constant: list[str]
    """columns with one and the same value in all rows compared (`qe_edge.metrics.constant`)"""
    scores: dict[str, Figures]
    """by score column; empty when there are fewer than LEAST_ROWS rows"""


@dataclass(frozen=True)
class Evaluation:
    """Everything that was measured."""

    gold: str
    scores: list[str]
    by: str | None
    """as Grouping.by"""
    samples: int
    """bootstrap resamples"""
    seed: int
    groups: list[Group]
    """in the order of the tables"""
    macro: dict[str, Figures]
    """by score column: means over the groups where the measure is defined"""
    differences: dict[str, Figures]
    """by score column but the first: macro average of this column's figure minus the first column's"""


@dataclass(frozen=True)
class _Draws:
    """The figures of some score columns in one group, nan where undefined."""

    values: FloatArray
    """[S, M] on the rows as they are"""
    resampled: FloatArray
    """[S, M, B]"""


def evaluate(
    tables: Sequence[ScoreTable], grouping: Grouping, gold: str, scores: Sequence[str], samples: int, seed: int
) -> Evaluation:
    """Measure how well each score column agrees with the column `gold`, in each group and on average over groups.

    A group's interval depends on its rows, its name and the seed, not on the other groups.
    Raises InputError when no group has LEAST_ROWS rows with all numbers.
    """
    columns = {name: np.concatenate([table.numbers[name] for table in tables]) for name in (gold, *scores)}
    groups, draws = [], []
    for name, rows in _rows_by_name(grouping.names).items():
        group, drawn = _measure(name, {column: values[rows] for column, values in columns.items()}, samples, seed)
        groups.append(group)
        if drawn is not None:
            draws.append(drawn)
    if not draws:
        most = max(group.rows for group in groups)
        raise InputError(
            f"{tables[0].name}: no group has {LEAST_ROWS} rows with numbers in {' and '.join(map(repr, columns))} "
            f"(at most {most}); check the columns, or the groups"
        )
    values = np.stack([drawn.values for drawn in draws])  # [G, S, M]
    resampled = np.stack([drawn.resampled for drawn in draws])  # [G, S, M, B]
    macro = {score: _averages(values[:, at], resampled[:, at]) for at, score in enumerate(scores)}
    differences = {
        score: _averages(values[:, at] - values[:, 0], resampled[:, at] - resampled[:, 0])
        for at, score in enumerate(scores)
        if at > 0
    }
    return Evaluation(gold, list(scores), grouping.by, samples, seed, groups, macro, differences)


def _rows_by_name(names: Sequence[str]) -> dict[str, NDArray[np.intp]]:
    """Positions of the rows of every group, groups in the order of their first rows."""
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        rows.setdefault(name, []).append(row)
    return {name: np.array(positions, np.intp) for name, positions in rows.items()}


def _measure(name: str, columns: Mapping[str, FloatArray], samples: int, seed: int) -> tuple[Group, _Draws | None]:
    """One group; columns: [n] by name, human scores first."""
    missing = {column: np.isnan(values) for column, values in columns.items()}
    complete = ~np.any(list(missing.values()), axis=0)
    compared = {column: values[complete] for column, values in columns.items()}
    rows = int(complete.sum())
    draws = _draws(name, compared, samples, seed) if rows >= LEAST_ROWS else None
    group = Group(
        name=name,
        read=len(complete),
        rows=rows,
        without={column: int(absent.sum()) for column, absent in missing.items()},
        tied={column: _tied(values) for column, values in compared.items()},
        constant=[column for column, values in compared.items() if rows and constant(values)],
        scores={}
        if draws is None
        else {
            score: _averages(draws.values[None, at], draws.resampled[None, at])
            for at, score in enumerate(list(columns)[1:])
        },
    )
    return group, draws


def _draws(name: str, columns: Mapping[str, FloatArray], samples: int, seed: int) -> _Draws:
    gold, *scores = columns.values()
    predicted = np.stack(scores)  # [S, n]
    generator = np.random.default_rng([seed, *name.encode("utf-8", "surrogateescape")])  # it may be a file's
    return _Draws(
        values=np.stack([measure(predicted, gold) for measure in MEASURES.values()], axis=1),
        resampled=bootstrap_draws(predicted, gold, list(MEASURES), samples, generator),
    )


def _averages(values: FloatArray, resampled: FloatArray) -> Figures:
    """Means over the groups where a measure is defined: values [G, M] and resampled [G, M, B].

    A resample's mean is over those of these groups where the measure is defined on it: of many small groups, one has
    a constant column on nearly every resample.
    """
    return {measure: _average(values[:, at], resampled[:, at]) for at, measure in enumerate(MEASURES)}


def _average(values: FloatArray, resampled: FloatArray) -> Figure:
    defined = ~np.isnan(values)
    if not defined.any():
        return Figure(None, None, 0, resampled.shape[1])
    drawn = resampled[defined]
    with np.errstate(invalid="ignore"):  # 0 / 0 where no group has the measure
        means = np.nansum(drawn, axis=0) / (~np.isnan(drawn)).sum(axis=0)
    return Figure(float(values[defined].mean()), interval(means), int(defined.sum()), int(np.isnan(means).sum()))


def _tied(values: FloatArray) -> float:
    """Share of rows whose value another row has too."""
    counts = np.unique(values, return_counts=True)[1]
    return float(counts[counts > 1].sum() / max(1, len(values)))
