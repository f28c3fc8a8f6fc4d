"""`qe-edge allocate`: what it prints and writes, and what it refuses."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from qe_edge.errors import OutputError, QeEdgeError, UsageError
from qe_edge_train.allocation.allocate import allocate as share
from qe_edge_train.allocation.command import allocate
from qe_edge_train.allocation.spectra import block_alphas, load_unquantised


def run(*arguments: str | Path) -> str:
    """Output of the command; its error is raised."""
    app = typer.Typer()
    app.command()(allocate)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if isinstance(result.exception, QeEdgeError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_a_report_holds_every_allocation_of_the_kept_blocks(tiny_base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "report"

    printed = run(tiny_base, "-o", folder, "--blocks", "3", "--total", "20", "--beta", "4")

    alphas = block_alphas(load_unquantised(str(tiny_base)), "hill_median")
    with (folder / "allocation.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    content = json.loads((folder / "allocation.json").read_text(encoding="utf-8"))
    assert [float(row["hill_median"]) for row in rows] == pytest.approx(alphas.tolist(), abs=1e-6)
    assert [int(row["alpha"]) for row in rows[:3]] == share(alphas[:3].tolist(), 20, 4.0)
    assert [int(row["beta_0.25"]) for row in rows[:3]] == share(alphas[:3].tolist(), 20, 0.25)
    assert [row["uniform"] for row in rows] == ["7", "7", "6", ""]
    assert content["counts"]["mola_reversed"] == [int(row["mola_reversed"]) for row in rows[:3]]
    assert content["budget"] == {"blocks": 3, "total": 20, "estimator": "hill_median", "beta": 4.0}
    assert printed.splitlines()[5].split() == ["total", *["20"] * 10]
    assert "20 over 3 of 4 blocks; alpha follows hill_median with beta 4" in printed


def test_the_table_of_matrices_has_seven_lines_a_block(tiny_base: Path, tmp_path: Path) -> None:
    run(tiny_base, "-o", tmp_path)

    with (tmp_path / "matrices.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 4 * 7
    assert rows[7]["block"] == "2"
    assert rows[7]["matrix"] == "self_attn.q_proj"
    assert float(rows[7]["ks_peak"]) > 1


def test_plots_are_written_as_png_and_svg(tiny_base: Path, tmp_path: Path) -> None:
    run(tiny_base, "-o", tmp_path)

    for name in ("alphas", "allocation"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (tmp_path / f"{name}.svg").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "total"), [((), 10), (("--experts", "2"), 8), (("--rank", "16"), 64), (("--total", "9"), 9)]
)
def test_the_total_comes_from_experts_rank_or_itself(
    tiny_base: Path, tmp_path: Path, options: tuple[str, ...], total: int
) -> None:
    run(tiny_base, "-o", tmp_path, *options)

    content = json.loads((tmp_path / "allocation.json").read_text(encoding="utf-8"))
    assert [sum(counts) for counts in content["counts"].values()] == [total] * 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--blocks", "5"), "has 4 blocks; give at most that many"),
        (("--total", "3"), "--total 3: 4 kept blocks need at least 1 each"),
        (("--rank", "8", "--total", "9"), "exclude each other"),
        (("--experts", "inf"), "--experts inf: give a finite number"),
        (("--beta", "inf"), "--beta inf: give a finite number"),
    ],
)
def test_budgets_that_cannot_work_are_refused(
    tiny_base: Path, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        run(tiny_base, "-o", tmp_path, *options)


def test_a_report_that_is_there_is_not_replaced(tiny_base: Path, tmp_path: Path) -> None:
    (tmp_path / "allocation.csv").write_text("mine")

    with pytest.raises(OutputError, match=r"holds other files \(allocation.csv\); give a new or empty folder with -o"):
        run(tiny_base, "-o", tmp_path)

    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("allocation.csv", "mine")]


def test_a_base_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be loaded"):
        run(tmp_path / "nothing", "-o", tmp_path / "report")
