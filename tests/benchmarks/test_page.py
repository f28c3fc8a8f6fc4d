"""The page of figures is what the measurements beside it say, and so is README's table."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.page import Figure, others, page

REPOSITORY = Path(__file__).parents[2]
MEASURED = REPOSITORY / "docs" / "performance"


def test_the_page_is_made_of_the_measurements_beside_it() -> None:
    assert (REPOSITORY / "docs" / "performance.md").read_text(encoding="utf-8") == page(MEASURED)


def test_the_table_of_the_readme_is_that_of_the_page() -> None:
    row = re.compile(r"^\|[^|]+\| ([\d.]+) \| ([\d.]*) ?\|", re.MULTILINE)
    measured = set(row.findall((REPOSITORY / "docs" / "performance.md").read_text(encoding="utf-8")))
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    told = row.findall(readme[readme.index("| | rows/s |") : readme.index("![Rows per second")])
    assert len(told) > 5
    assert set(told) <= measured


@pytest.mark.parametrize(
    ("written", "expected"),
    [(f"{Figure(0.5):.2f}", ".50"), (f"{Figure(10.5):.1f}", "10.5"), (f"{Figure(0.775):.1%}", "77.5 %")],
)
def test_figures_are_written_without_a_leading_zero(written: str, expected: str) -> None:
    assert written == expected


def test_a_peer_that_wins_is_named() -> None:
    def entry(name: str, speed: float) -> dict[str, object]:
        errors = {"error": 0.05, "centred_error": 0.5}
        return {"name": name, "rows_per_second": speed, "peak_rss_mib": 1.0, **errors}

    speeds = {"qe-edge scorer": 10.0, "qe-edge states": 5.0, "torch": 12.0, "openvino": 2.0}
    results = [entry(name, speed) for name, speed in speeds.items()]
    told = others({"results": results, "rows": 300, "rounds": 1, "failures": {}})
    assert told["faster"] == "torch"
    assert f"{told['nearest_times']:.1f}" == ".8"
    assert told["table"].splitlines()[1].startswith("| torch | 12.0 | .8 |")
