"""The table lines up, shows what is undefined as a dash, and carries the signature; the record is plain JSON."""

from __future__ import annotations

import json
from dataclasses import replace

from qe_edge import __version__
from qe_edge.evaluation.comparison import Evaluation, Figure, Figures, Group
from qe_edge.evaluation.reading import ScoreTable
from qe_edge.evaluation.report import as_record, as_text, signature
from qe_edge.metrics import MEASURES
from qe_edge.table.quoting import Quoting


def figures(correlation: Figure, error: Figure) -> Figures:
    """The same figure for every correlation, and for both errors."""
    return {name: error if name in ("mae", "rmse") else correlation for name in MEASURES}


def group(name: str, rows: int, tied: float, scores: dict[str, Figures]) -> Group:
    return Group(name, rows, rows, {"mean": 0, "qe": 0}, {"mean": tied, "qe": 0.0, "b": 0.1}, [], scores)


GOOD = figures(Figure(0.6614, (-0.0484, 1.0), 1, 0), Figure(12.345, (9.0, 100.126), 1, 0))
FLAT = figures(Figure(None, None, 0, 200), Figure(8.5, None, 1, 0))
LESS = figures(Figure(-0.00001, (-0.5, 0.25), 2, 0), Figure(-0.25, (-0.5, 0.0), 2, 0))
ONE = Evaluation("mean", ["qe"], "lp", 200, 0, [group("et-en", 1000, 0.234, {"qe": GOOD})], {"qe": GOOD}, {})
SEVERAL = replace(
    ONE,
    scores=["qe", "b"],
    groups=[
        group("et-en", 1000, 0.234, {"qe": GOOD, "b": FLAT}),
        group("tiny", 2, 1.0, {}),
        group("ro-en", 7, 0.6, {"qe": GOOD, "b": GOOD}),
    ],
    macro={"qe": GOOD, "b": GOOD},
    differences={"b": LESS},
)
SIGNATURE = (
    f"qe-edge {__version__} | eval | gold mean | score qe | by lp | 95 % percentile bootstrap, 200 samples, seed 0"
)


def test_one_group_and_one_score_column_are_one_line() -> None:
    assert as_text(ONE) == "\n".join(
        (
            "agreement of qe with mean; 95 % intervals from 200 bootstrap samples in brackets",
            "",
            "lp     rows  Spearman             Pearson              Kendall tau-b        MAE                   RMSE",
            "et-en  1000  .661 [-.048, 1.000]  .661 [-.048, 1.000]  .661 [-.048, 1.000]  "
            "12.35 [9.00, 100.13]  12.35 [9.00, 100.13]",
            "",
            "rows that share their value with another row of the group: mean 23 %, qe 0 %",
            "",
            SIGNATURE,
        )
    )


def test_several_columns_stand_side_by_side_with_macro_average_and_difference() -> None:
    lines = [line.split() for line in as_text(SEVERAL).splitlines()]
    good = [*[".661", "[-.048,", "1.000]"] * 3, *["12.35", "[9.00,", "100.13]"] * 2]

    assert lines[2][:3] == ["lp", "score", "rows"]
    assert lines[3] == ["et-en", "qe", "1000", *good]
    assert lines[4] == ["b", "-", "-", "-", "8.50", "8.50"]
    assert lines[5] == ["tiny", "qe", "2", *["-"] * 5]
    assert lines[6] == ["b", *["-"] * 5]
    assert lines[9] == ["macro", "of", "2", "qe", "1007", *good]
    assert lines[10] == ["b", *good]
    difference = [*["+.000", "[-.500,", "+.250]"] * 3, *["-0.25", "[-0.50,", "+0.00]"] * 2]
    assert lines[11] == ["difference", "b", "-", "qe", *difference]
    assert as_text(SEVERAL).splitlines()[13] == (
        "rows that share their value with another row of the group: mean 23 to 60 %, qe 0 %, b 10 %"
    )


def test_errors_on_a_small_scale_have_more_decimals() -> None:
    small = figures(Figure(0.5, None, 1, 0), Figure(0.01234, None, 1, 0))
    evaluation = replace(ONE, groups=[group("et-en", 9, 0, {"qe": small})], macro={"qe": small})

    assert as_text(evaluation).splitlines()[3].split() == ["et-en", "9", ".500", ".500", ".500", "0.0123", "0.0123"]


def test_the_signature_tells_columns_groups_and_bootstrap() -> None:
    assert signature(ONE) == SIGNATURE
    assert signature(replace(SEVERAL, by=None, seed=3)) == (
        f"qe-edge {__version__} | eval | gold mean | score qe, b | one group | "
        "95 % percentile bootstrap, 200 samples, seed 3"
    )


def test_the_record_is_json_with_null_for_what_is_undefined() -> None:
    tables = [ScoreTable("a.tsv", Quoting.CSV, 1009, {}, {})]

    record = json.loads(json.dumps(as_record(SEVERAL, tables, ["careful"]), allow_nan=False))

    assert list(record) == [
        *("signature", "version", "files", "confidence"),
        *("gold", "scores", "by", "samples", "seed", "groups", "macro", "differences", "warnings"),
    ]
    assert record["signature"] == signature(SEVERAL)
    assert record["files"] == [{"name": "a.tsv", "rows": 1009, "quoting": "csv"}]
    assert record["confidence"] == 0.95
    assert record["warnings"] == ["careful"]
    et = record["groups"][0]
    assert list(et) == ["name", "read", "rows", "without", "tied", "constant", "scores"]
    assert et["scores"]["b"]["spearman"] == {"value": None, "interval": None, "groups": 0, "undefined": 200}
    assert record["macro"]["qe"]["mae"] == {"value": 12.345, "interval": [9.0, 100.126], "groups": 1, "undefined": 0}
    assert record["differences"]["b"]["kendall"]["groups"] == 2
