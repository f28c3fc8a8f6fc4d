"""What a user gets who installs qe-edge with the extra `cpu` and nothing else."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from qe_edge.errors import MissingExtraError
from tests.packaging.conftest import Environment

HEAVY = ("torch", "transformers", "peft", "bitsandbytes", "onnx", "onnxscript")


def test_light_install_holds_no_training_or_export_package(light: Environment, tmp_path: Path) -> None:
    script = f"from importlib.util import find_spec; print([name for name in {HEAVY} if find_spec(name)])"
    assert light.run("python", "-c", script, cwd=tmp_path).stdout == "[]\n"


def test_help_lists_all_commands_without_torch(light: Environment, tmp_path: Path) -> None:
    done = light.run("qe-edge", "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for command in ("score", "eval", "inspect", "train", "export"):
        assert command in done.stdout


def test_light_install_scores_every_example_row(light: Environment, sample: Path, tmp_path: Path) -> None:
    done = light.run("qe-edge", "score", str(sample), "-o", "out.tsv", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "out.tsv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))
    given = [line.split("\t") for line in sample.read_text(encoding="utf-8").splitlines()[1:]]
    assert [[row[name] for name in ("lp", "original", "translation", "mean")] for row in rows] == given
    assert {row["qe_status"] for row in rows} == {"ok"}
    assert all(-20 < float(row["qe_score"]) < 120 for row in rows)


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (("eval", "scored.tsv", "--gold", "mean"), "qe-edge[eval]"),
        (("train", "recipe.toml", "-o", "run"), "qe-edge[train]"),
        (("export", "run", "-o", "bundle"), "qe-edge[export]"),
    ],
)
def test_command_without_its_packages_names_the_extra_in_one_line(
    light: Environment, repository: Path, tmp_path: Path, arguments: tuple[str, ...], extra: str
) -> None:
    (tmp_path / "recipe.toml").write_bytes((repository / "recipes" / "embedded.toml").read_bytes())
    done = light.run("qe-edge", *arguments, cwd=tmp_path)
    assert done.returncode == MissingExtraError.exit_code == 9, done.stderr
    assert done.stderr.count("\n") == 1
    assert extra in done.stderr
