"""What has to be said is said, once, and nothing else."""

from __future__ import annotations

import math

import pytest

from qe_edge.evaluation.caveats import caveats
from qe_edge.evaluation.grouping import Grouping
from tests.qe_edge.evaluation.conftest import Columns, Evaluate

NAN = math.nan
FINE: Columns = {"mean": [float(n) for n in range(30)], "qe": [float(n * n) for n in range(30)]}
NOTHING = Grouping("lp", ["a", "b"], ["a", "b"], ["f", "f"])


def test_good_tables_have_no_caveats(evaluated: Evaluate) -> None:
    assert caveats(evaluated({"et-en": FINE, "ro-en": FINE}), NOTHING) == []


def test_every_reason_to_leave_rows_or_groups_out_is_said(evaluated: Evaluate) -> None:
    groups = {
        "et-en": {"mean": [*FINE["mean"], 1, NAN], "qe": [*FINE["qe"], NAN, NAN]},
        "ro-en": {"mean": [1, 2, NAN], "qe": [1, 2, 3]},
        "ne-en": {"mean": [50.0] * 30, "qe": FINE["qe"]},
        "si-en": {"mean": FINE["mean"], "qe": [7.0] * 30},
    }

    assert caveats(evaluated(groups), NOTHING) == [
        "et-en: 2 of 32 rows left out: 1 without mean, 2 without qe",
        "ro-en: 1 of 3 rows left out: 1 without mean",
        "ro-en: not evaluated and not in the macro average; rows that can be compared: 2, needed: 3",
        "ne-en: column mean has the same value in all rows; all correlations are undefined",
        "si-en: column qe has the same value in all rows; correlations of qe are undefined",
        "macro average: correlations of qe are over 1 of 3 groups",
    ]


def test_intervals_of_few_rows_are_called_unreliable(evaluated: Evaluate) -> None:
    few = {"mean": [1, 2, 3], "qe": [1, 3, 2]}

    result = evaluated({"et-en": FINE, "ro-en": few})

    undefined = result.groups[1].scores["qe"]["spearman"].undefined
    assert undefined > 0
    assert caveats(result, NOTHING) == [
        "fewer than 30 rows in ro-en (3): intervals are unreliable",
        f"of 200 resamples, some had a constant column in ro-en ({undefined}); "
        "the intervals of correlations leave them out",
    ]


def test_of_many_small_groups_a_line_names_some(evaluated: Evaluate) -> None:
    few = {"mean": [1, 2, 3], "qe": [1, 3, 2]}

    lines = caveats(evaluated({f"g{n}": few for n in range(40)}), NOTHING)

    assert lines[0].startswith("fewer than 30 rows in g0 (3), g1 (3), ")
    assert lines[0].endswith(", g11 (3), 28 more: intervals are unreliable")
    assert lines[1].endswith(", 28 more; the intervals of correlations leave them out")


@pytest.mark.parametrize(
    ("grouping", "start", "end"),
    [
        (
            Grouping(None, ["all"] * 3, ["et-en", "ro-en", "(empty)"], ["f"] * 3),
            "2 language pairs are pooled in one group; ",
            "leave out --pool to evaluate each pair",
        ),
        (
            Grouping("system", ["a", "a", "b"], ["et-en", "ro-en", "si-en"], ["f"] * 3),
            "2 language pairs are pooled in one group; ",
            "leave out --by to evaluate each pair",
        ),
        (Grouping(None, ["all"] * 2, None, ["f", "g"]), "rows of 2 files are pooled in one group; ", "usually upwards"),
    ],
)
def test_pooled_language_pairs_are_noticed(evaluated: Evaluate, grouping: Grouping, start: str, end: str) -> None:
    (warning,) = caveats(evaluated({"all": FINE}), grouping)

    assert warning.startswith(start)
    assert warning.endswith(end)


@pytest.mark.parametrize(
    "grouping",
    [
        Grouping(None, ["all"] * 2, ["et-en", "et-en"], ["f", "g"]),
        Grouping("system", ["a", "b"], ["et-en", "ro-en"], ["f", "f"]),
        Grouping(None, ["all"] * 2, None, ["f", "f"]),
    ],
)
def test_groups_of_one_pair_are_not_called_pooled(evaluated: Evaluate, grouping: Grouping) -> None:
    assert caveats(evaluated({"all": FINE}), grouping) == []
