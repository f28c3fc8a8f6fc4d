"""Tables of a sweep: intervals over seeds and paired differences, worked by hand."""

from __future__ import annotations

import csv
import io
import json
import math

import pytest
import torch

from qe_edge_train.recipe import Base, Optimiser, Recipe
from qe_edge_train.sweep.plan import PlannedRun
from qe_edge_train.sweep.results import (
    Result,
    estimate,
    failed,
    results_csv,
    summarise,
    summary_csv,
    summary_json,
    summary_table,
)


def result(rank: int, seed: int, et: float, ne: float) -> Result:
    recipe = Recipe(base=Base(model="m"), optimiser=Optimiser(seed=seed))
    planned = PlannedRun(f"rank-{rank}_seed-{seed}", "", {"adapter.rank": rank, "optimiser.seed": seed}, recipe)
    figures = {"seconds": 1.5, "trainable": 100, "peak_memory_mb": 7, "blocks_kept": 3, "best_step": 9}
    return Result(planned, (et + ne) / 2, {"et-en": et, "ne-en": ne}, figures)


THREE_AND_TWO = [
    result(8, 1, 0.5, 0.3),  # .40
    result(8, 2, 0.6, 0.4),  # .50
    result(8, 3, 0.5, 0.4),  # .45
    result(32, 2, 0.7, 0.5),  # .60: .10 above the first with seed 2
    result(32, 3, 0.6, 0.5),  # .55: .10 above it with seed 3
    result(32, 4, 0.9, 0.9),  # .90: seed 4 has no partner
]


def test_the_interval_of_three_runs_is_students() -> None:
    found = estimate([1.0, 2.0, 3.0])

    half = 4.302652729911275 / math.sqrt(3)  # t(.975) with 2 degrees of freedom, from printed tables: 4.303
    assert (found.runs, found.mean, found.sd) == (3, 2.0, 1.0)
    assert [found.low, found.high] == pytest.approx([2 - half, 2 + half])


def test_one_run_has_no_interval_and_the_table_says_so() -> None:
    found = summarise(THREE_AND_TWO[:1])

    assert (found[0].macro.sd, found[0].macro.low, found[0].macro.high) == (None, None, None)
    assert summary_table(found).splitlines()[1:] == [
        "rank-8            1    0.4000       -                 -",
        "- : one seed has no interval; list several in [sweep.grid] under `optimiser.seed`",
    ]


def test_differences_to_the_first_configuration_are_paired_by_seed() -> None:
    first, second = summarise(THREE_AND_TWO)

    assert (first.configuration, second.configuration) == ("rank-8", "rank-32")
    assert first.macro.mean == pytest.approx(0.45)
    assert first.macro.sd == pytest.approx(0.05)
    assert first.pairs == pytest.approx({"et-en": 1.6 / 3, "ne-en": 1.1 / 3})
    assert first.difference is None
    assert second.difference is not None
    assert second.difference.runs == 2
    assert second.difference.mean == pytest.approx(0.1)
    assert second.difference.sd == pytest.approx(0, abs=1e-12)


def test_configurations_without_a_common_seed_are_not_compared() -> None:
    assert summarise([THREE_AND_TWO[0], THREE_AND_TWO[3]])[1].difference is None


def test_failed_runs_are_kept_in_the_table_and_out_of_the_means() -> None:
    lost = failed(THREE_AND_TWO[1].planned, "out of memory")
    results = [THREE_AND_TWO[0], lost, THREE_AND_TWO[3]]

    rows = list(csv.DictReader(io.StringIO(results_csv(results))))

    assert [row["run"] for row in rows] == ["rank-8_seed-1", "rank-8_seed-2", "rank-32_seed-2"]
    assert rows[0]["adapter.rank"] == "8"
    assert (rows[0]["et-en"], rows[0]["macro"], rows[0]["trainable"]) == ("0.5000", "0.4000", "100")
    assert (rows[1]["macro"], rows[1]["failure"]) == ("", "out of memory")
    assert summarise(results)[0].macro.runs == 1
    assert summarise([lost]) == []
    assert summary_table([]) == "no run finished"


def test_nothing_is_compared_with_a_first_configuration_that_failed() -> None:
    found = summarise([failed(THREE_AND_TWO[1].planned, "no"), THREE_AND_TWO[3]])

    assert [(one.configuration, one.difference) for one in found] == [("rank-32", None)]


def test_csv_and_json_hold_what_the_summary_holds() -> None:
    summaries = summarise(THREE_AND_TWO)

    rows = list(csv.DictReader(io.StringIO(summary_csv(summaries))))
    stored = json.loads(summary_json(summaries, THREE_AND_TWO, torch.device("cpu")))

    assert (rows[0]["macro"], rows[0]["macro_sd"], rows[0]["difference"]) == ("0.4500", "0.0500", "")
    assert (rows[1]["common_seeds"], rows[1]["difference"]) == ("2", "0.1000")
    assert stored["summary"][1]["difference"]["mean"] == pytest.approx(0.1)
    assert stored["runs"][0]["varied"] == {"adapter.rank": 8, "optimiser.seed": 1}
    assert stored["environment"]["device"] == "cpu"


def test_a_correlation_that_is_undefined_is_null_in_json() -> None:
    constant = result(8, 1, math.nan, 0.3)

    assert json.loads(summary_json([], [constant], torch.device("cpu")))["runs"][0]["macro"] is None
