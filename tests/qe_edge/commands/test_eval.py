"""`qe-edge eval` from the command line: scored tables, other tools' tables, comparisons, and what it refuses."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qe_edge.cli import main
from qe_edge.errors import MissingExtraError
from qe_edge.metrics import kendall, mae, pearson, rmse, spearman

QUICK = ("--samples", "100")


def table(path: Path, header: str, rows: list[tuple[object, ...]]) -> str:
    path.write_text("\n".join([header, *("\t".join(map(str, row)) for row in rows)]) + "\n", encoding="utf-8")
    return str(path)


@pytest.fixture
def systems(tmp_path: Path) -> str:
    """Two pairs on different levels, 40 rows each; within a pair, only `good` agrees with the human score."""
    generator = np.random.default_rng(1)
    rows: list[tuple[object, ...]] = []
    for pair, level in (("et-en", 30), ("ro-en", 80)):
        for human in generator.normal(level, 5, 40):
            rows.append((pair, human, human + generator.normal(0, 2), level + generator.normal(0, 5)))
    return table(tmp_path / "systems.tsv", "lp\tmean\tgood\tbad", rows)


def run(*arguments: str) -> int:
    return main(["eval", *arguments, *QUICK])


def record(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert run(*arguments, "--json") == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_every_measure_is_that_of_the_rows_of_a_pair(systems: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = record(capsys, systems, "--gold", "mean", "--score", "good")

    cells = [line.split("\t") for line in Path(systems).read_text().splitlines()[1:]]
    assert [group["name"] for group in found["groups"]] == ["et-en", "ro-en"]
    for group in found["groups"]:
        human, score = (np.array([float(row[at]) for row in cells if row[0] == group["name"]]) for at in (1, 2))
        for name, measure in {
            "pearson": pearson,
            "spearman": spearman,
            "kendall": kendall,
            "mae": mae,
            "rmse": rmse,
        }.items():
            figure = group["scores"]["good"][name]
            assert figure["value"] == pytest.approx(measure(score, human))
            assert figure["interval"][0] < figure["value"] < figure["interval"][1]
    assert found["warnings"] == []


def test_systems_are_compared_with_the_first(systems: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = record(capsys, systems, "--gold", "mean", "--score", "bad", "--score", "good")

    difference = found["differences"]["good"]["spearman"]
    assert difference["value"] == pytest.approx(
        found["macro"]["good"]["spearman"]["value"] - found["macro"]["bad"]["spearman"]["value"]
    )
    assert difference["interval"][0] > 0.5


def test_pooling_pairs_lets_a_useless_score_look_good_and_is_warned_of(
    systems: str, capsys: pytest.CaptureFixture[str]
) -> None:
    per_pair = record(capsys, systems, "--gold", "mean", "--score", "bad")
    assert per_pair["macro"]["bad"]["pearson"]["value"] < 0.3

    assert run(systems, "--gold", "mean", "--score", "bad", "--pool") == 0
    captured = capsys.readouterr()
    pooled = float("0" + captured.out.splitlines()[3].split()[5])
    assert pooled > 0.9
    assert captured.err.splitlines()[1:] == [
        "qe-edge: warning: 2 language pairs are pooled in one group; their levels differ, which distorts correlations, "
        "usually upwards; leave out --pool to evaluate each pair"
    ]


def test_the_table_is_on_standard_output_and_what_was_assumed_on_standard_error(
    systems: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(systems, "--gold", "mean", "--score", "good") == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert [line.split("  ")[0] for line in lines[2:6]] == ["lp", "et-en", "ro-en", "macro of 2"]
    assert lines[-1].endswith("| by lp | 95 % percentile bootstrap, 100 samples, seed 0")
    assert captured.err.splitlines() == [
        f"{systems}: 80 rows, read as unquoted TSV",
        "grouped by lp; change it with --by COLUMN or --pool",
    ]


def test_the_same_command_prints_the_same_and_another_seed_does_not(
    systems: str, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = []
    for seed in ("0", "0", "1"):
        run(systems, "--gold", "mean", "--score", "good", "--seed", seed)
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    assert printed[0].splitlines()[3] != printed[2].splitlines()[3]


def test_several_files_without_languages_are_groups(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows: list[tuple[object, ...]] = [(n, n * n % 7) for n in range(30)]
    files = [table(tmp_path / name, "mean\tqe_score", rows) for name in ("a.tsv", "b.tsv")]

    assert run(*files, "--gold", "mean") == 0
    captured = capsys.readouterr()
    assert [line.split()[0] for line in captured.out.splitlines()[2:6]] == ["file", "a.tsv", "b.tsv", "macro"]
    assert captured.err.splitlines()[2] == "grouped by file; change it with --by COLUMN or --pool"


def test_a_column_of_choice_groups_the_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = table(tmp_path / "t.tsv", "System\tmean\tx", [(f"s{n % 2}", n, n % 5) for n in range(60)])

    found = record(capsys, path, "--gold", "mean", "--score", "x", "--by", "system")

    assert (found["by"], [group["name"] for group in found["groups"]]) == ("system", ["s0", "s1"])


def test_quoted_and_unquoted_tables_give_the_same_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = table(tmp_path / "plain.tsv", "text\tmean\tx", [('"a', n, n % 7) for n in range(40)])
    quoted = table(tmp_path / "quoted.tsv", "text\tmean\tx", [('"""a\nb"', n, n % 7) for n in range(40)])

    found = [record(capsys, path, "--gold", "mean", "--score", "x") for path in (plain, quoted)]

    assert [one["files"][0]["quoting"] for one in found] == ["none", "csv"]
    assert found[0]["groups"] == found[1]["groups"]
    assert main(["eval", plain, "--gold", "mean", "--score", "x", "--quoting", "csv"]) == 3


def test_rows_without_a_score_are_counted_and_constant_columns_shown_as_undefined(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows: list[tuple[object, ...]] = [("et-en", n, n % 5, "ok") for n in range(40)]
    rows += [("et-en", 3, "", "empty_source"), ("et-en", "", 4, "ok")]
    rows += [("ro-en", 100, n, "ok") for n in range(30)]
    path = table(tmp_path / "t.tsv", "lp\tmean\tqe_score\tqe_status", rows)

    assert run(path, "--gold", "mean") == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines()[4].split()[:5] == ["ro-en", "30", "-", "-", "-"]
    assert captured.err.splitlines()[2:] == [
        "qe-edge: warning: et-en: 2 of 42 rows left out: 1 without mean, 1 without qe_score",
        "qe-edge: warning: ro-en: column mean has the same value in all rows; all correlations are undefined",
        "qe-edge: warning: macro average: correlations of qe_score are over 1 of 2 groups",
    ]
    found = record(capsys, path, "--gold", "mean")
    assert found["groups"][1]["scores"]["qe_score"]["kendall"]["value"] is None


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--gold", "mean", "--score", "mean"], 2, "--score mean: is the column of --gold; name a column with"),
        (["--gold", "mean", "--score", "bad", "--score", "bad"], 2, "--score bad: given twice; leave one out"),
        (
            ["--gold", "mean", "--score", "MEAN"],
            2,
            "systems.tsv:1: 'mean' and 'MEAN' are the same column; name it",
        ),
        (["--gold", "mean", "--score", "bad", "--score", "Bad "], 2, "'bad' and 'Bad ' are the same column; name it"),
        (["--gold", "mean", "--by", "lp", "--pool"], 2, "--by lp: give either --by or --pool, not both"),
        (["--gold", "mean"], 3, "systems.tsv:1: no column 'qe_score' among 'lp', 'mean', 'good', 'bad'; name columns"),
        (
            ["--gold", "maen", "--score", "bad"],
            3,
            "systems.tsv:1: no column 'maen' among 'lp', 'mean', 'good', 'bad'; did you mean 'mean'? ",
        ),
        (["--gold", "mean", "--score", "bad", "--by", "x"], 3, "systems.tsv:1: no column 'x' among"),
        (["--gold", "lp", "--score", "bad"], 3, "systems.tsv:2: column 'lp' holds 'et-en', not a finite number"),
    ],
)
def test_what_cannot_work_is_one_line(
    systems: str, options: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(systems, *options) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("qe-edge: error: ")
    assert message in line


def test_a_file_given_twice_is_refused(systems: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(systems, systems, "--gold", "mean", "--score", "bad") == 2
    assert capsys.readouterr().err == f"qe-edge: error: {systems}: given twice; leave one out\n"


@pytest.mark.parametrize("kind", ["spelled otherwise", "link", "hard link"])
def test_a_file_given_twice_under_two_names_is_refused(
    kind: str, systems: str, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Path(systems).with_name("other.tsv")
    if kind == "link":
        other.symlink_to(systems)
    elif kind == "hard link":
        other.hardlink_to(systems)
    name = f"{other.parent}/./systems.tsv" if kind == "spelled otherwise" else str(other)
    assert run(systems, name, "--gold", "mean", "--score", "bad") == 2
    assert capsys.readouterr().err == f"qe-edge: error: {name}: is the same file as {systems}; leave one out\n"


@pytest.mark.parametrize("options", [(), ("--json",)], ids=["text", "JSON"])
def test_names_that_are_no_text_are_shown_escaped(tmp_path: Path, options: tuple[str, ...]) -> None:
    rows: list[tuple[object, ...]] = [(n, n * n % 7) for n in range(30)]
    files = [table(tmp_path / os.fsdecode(name), "mean\tqe_score", rows) for name in (b"a\xff.tsv", b"b\xff.tsv")]
    command = [sys.executable, "-m", "qe_edge", "eval", *files, "--gold", "mean", *QUICK, *options]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert rb"a\udcff.tsv" in done.stdout
    assert done.stderr.decode().splitlines()[-1] == "grouped by file; change it with --by COLUMN or --pool"
    if options:
        assert [group["name"] for group in json.loads(done.stdout)["groups"]] == ["a\udcff.tsv", "b\udcff.tsv"]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("gold", "score"), [("mean", "x"), ("x", "mean")])
def test_a_column_that_differs_by_rounding_only_is_constant(
    gold: str, score: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows: list[tuple[object, ...]] = [(0.1 + 0.2 if n % 2 else 0.3, n * n % 7) for n in range(30)]
    path = table(tmp_path / "t.tsv", "mean\tx", rows)
    found = record(capsys, path, "--gold", gold, "--score", score)
    assert found["groups"][0]["constant"] == ["mean"]
    assert found["macro"][score]["spearman"] == {"value": None, "interval": None, "groups": 0, "undefined": 100}
    assert found["warnings"][0].startswith("all: column mean has the same value in all rows; ")


@pytest.mark.parametrize(("name", "kind"), [("t.jsonl", "JSONL"), ("t.PARQUET", "Parquet")])
def test_tables_of_another_kind_are_refused_by_their_name(
    name: str, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_text('{"mean": 1, "qe_score": 2}\n')
    assert run(f"{tmp_path}/{name}", "--gold", "mean") == 3
    assert capsys.readouterr().err == (
        f"qe-edge: error: {tmp_path}/{name}: is {kind} by its name, and only TSV is read here; "
        "give its columns as a .tsv file\n"
    )


def test_help_names_every_option_that_the_documentation_names(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["eval", "--help"])
    documented = (repository / "docs" / "evaluation.md").read_text()
    options = {word for word in capsys.readouterr().out.split() if word.startswith("--")} - {"--help"}
    assert len(options) == 8
    assert {option for option in options if f"`{option}" not in documented} == set()


def test_scored_tables_are_evaluated_as_they_come(
    sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The embedded bundle scores two pairs of the sample; its output goes straight into the evaluation."""
    kept = [line for line in sample.read_text().splitlines(keepends=True) if line.startswith(("lp", "et-en", "ro-en"))]
    (tmp_path / "sample.tsv").write_text("".join(kept))
    assert main(["score", f"{tmp_path}/sample.tsv", "-q", "--device", "cpu"]) == 0
    scored = capsys.readouterr().out
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(scored.encode())))

    found = record(capsys, "-", "--gold", "mean")

    rows = [line.split("\t") for line in scored.splitlines()[1:]]
    assert [group["name"] for group in found["groups"]] == ["et-en", "ro-en"]
    assert {group["rows"] for group in found["groups"]} == {4}
    expected = [
        spearman(*(np.array([float(row[at]) for row in rows if row[0] == group["name"]]) for at in (4, 3)))
        for group in found["groups"]
    ]
    assert [group["scores"]["qe_score"]["spearman"]["value"] for group in found["groups"]] == pytest.approx(expected)
    assert found["macro"]["qe_score"]["spearman"]["value"] == pytest.approx(np.mean(expected))


def test_evaluation_needs_scipy_and_no_model(systems: str) -> None:
    code = (
        "import sys\nfrom qe_edge.cli import main\n"
        f"code = main(['eval', {systems!r}, '--gold', 'mean', '--score', 'good', '--samples', '100'])\n"
        "heavy = ('torch', 'onnxruntime', 'tokenizers', 'langcodes')\n"
        "print(code, [name for name in heavy if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"
    assert "Warning" not in done.stderr


def test_without_scipy_the_extra_to_install_is_named(
    systems: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qe_edge.commands.extras.find_spec", lambda module: None)

    assert run(systems, "--gold", "mean", "--score", "good") == MissingExtraError.exit_code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        "qe-edge: error: this command needs scipy, which a plain install leaves out; "
        "install with: pip install 'qe-edge[eval]'\n"
    )
