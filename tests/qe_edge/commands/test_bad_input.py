"""Bad input by hand: one line on standard error with file, line, value and remedy, and the documented exit code."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from qe_edge.cli import main

GOOD = b"src\tmt\nTere\tHello\njah\tyes\n"


def only_line(code: int, expected: int, out: bytes, err: bytes) -> str:
    """The only line on standard error of a command that has ended as it should; nothing is on standard output."""
    assert code == expected
    assert out == b""
    (line,) = err.decode().splitlines()
    return line


TheError = Callable[..., str]


@pytest.fixture
def the_error(capfdbinary: pytest.CaptureFixture[bytes]) -> TheError:
    """(exit code, *arguments) -> the only line of a command that ends so."""

    def error(expected: int, *arguments: str) -> str:
        code = main([*arguments])
        return only_line(code, expected, *capfdbinary.readouterr())

    return error


def error_of_a_process(expected: int, *arguments: str, stdin: bytes = b"") -> str:
    """The same, of a process of its own."""
    command = [sys.executable, "-m", "qe_edge", *arguments]
    done = subprocess.run(command, capture_output=True, check=False, input=stdin)
    return only_line(done.returncode, expected, done.stdout, done.stderr)


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.tsv"
    path.write_bytes(GOOD)
    return path


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.tsv", None, "missing.tsv: no such file; check the path"),
        ("", None, ": is a directory; give -o FOLDER as well, where its tables are to be"),
        ("binary.tsv", b"\x7fELF\x02\x01\x01\x00" + b"\x00" * 100, "binary.tsv: binary data or another encoding than"),
        ("empty.tsv", b"", "empty.tsv: the file is empty; give a table with at least one row"),
        ("header.tsv", b"src\tmt\n", "header.tsv: a header and no rows; give a table with at least one row"),
        ("column.tsv", b"src\ttext\na\tb\n", "column.tsv:1: no translation column among 'src', 'text'; name it"),
        ("again.tsv", b"src\tmt\tqe_score\na\tb\t1\n", "again.tsv:1: column 'qe_score' is there already; rename it"),
    ],
    ids=["missing file", "directory", "binary file", "empty file", "header only", "missing column", "scored already"],
)
def test_a_file_that_cannot_be_used_ends_the_run(
    the_error: TheError, tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    path = tmp_path / name if name else tmp_path
    if content is not None:
        path.write_bytes(content)
    line = the_error(3, "score", str(path), "--lp", "et-en")
    assert line.startswith(f"qe-edge: error: {path.parent if name else path}")
    assert message in line


def test_the_name_of_a_file_breaks_no_line_and_tells_the_terminal_nothing(the_error: TheError, tmp_path: Path) -> None:
    line = the_error(3, "score", str(tmp_path / "two\nlines\x1b[31m.tsv"))
    assert line.endswith(r"two\nlines\x1b[31m.tsv: no such file; check the path")


def test_an_unknown_language_on_the_command_line_ends_the_run(the_error: TheError, good: Path) -> None:
    line = the_error(2, "score", str(good), "--lp", "Estonain-en")
    assert line.startswith("qe-edge: error: --lp: unknown language 'Estonain'; did you mean Estonian? use an ISO 639")


def test_languages_that_cannot_be_detected_end_the_run(the_error: TheError, tmp_path: Path) -> None:
    (tmp_path / "same.tsv").write_text("src\tmt\nGood morning, how are you?\tGood evening, how were you?\n")
    line = the_error(3, "score", f"{tmp_path}/same.tsv")
    assert line == (
        f"qe-edge: error: {tmp_path}/same.tsv: source and translation both look like English; "
        "give the languages, as --lp et-en"
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing/out.tsv", "cannot be written (No such file or directory); the folder is missing"),
        ("good.tsv/out.tsv", "cannot be written (Not a directory); check the folder"),
        (".", "is a directory; give the name of a file"),
        ("good.tsv", "is the input itself; give another name to -o"),
    ],
)
def test_an_output_that_cannot_be_written_ends_the_run_before_anything_is_scored(
    the_error: TheError, good: Path, bundle: Path, name: str, message: str
) -> None:
    # the graph of this bundle could not even be loaded
    target = f"{good.parent}/{name}"
    line = the_error(5, "score", str(good), "--lp", "et-en", "-o", target, "--model", str(bundle))
    assert line.startswith(f"qe-edge: error: {target}: {message}")
    assert sorted(path.name for path in good.parent.iterdir()) == ["bundle", "good.tsv"]
    assert good.read_bytes() == GOOD


def test_a_tampered_bundle_ends_the_run(the_error: TheError, good: Path, bundle: Path) -> None:
    (bundle / "tokenizer.json").write_text("another tokenizer")
    line = the_error(6, "score", str(good), "--lp", "et-en", "--model", str(bundle), "-o", f"{good.parent}/out")
    assert line.startswith(f"qe-edge: error: {bundle}/tokenizer.json: sha256 ")
    assert line.endswith("export the bundle again or fetch a fresh copy")
    assert sorted(path.name for path in good.parent.iterdir()) == ["bundle", "good.tsv"]


def test_a_missing_bundle_ends_the_run(the_error: TheError, good: Path) -> None:
    line = the_error(6, "score", str(good), "--lp", "et-en", "--model", f"{good.parent}/nowhere")
    assert line.startswith(f"qe-edge: error: {good.parent}/nowhere: no such bundle folder; give the folder")


def test_cuda_that_is_not_there_ends_the_run(good: Path, bundle: Path) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime offers CUDA")
    line = error_of_a_process(7, "score", str(good), "--lp", "et-en", "--model", str(bundle), "--device", "cuda")
    assert line.startswith("qe-edge: error: ")
    assert "cuda" in line.casefold()


@pytest.mark.usefixtures("counting_scorer")
@pytest.mark.parametrize(
    ("content", "lp", "message", "row"),
    [
        (
            b"src\tmt\nTere\tHello\nCaf\xe9\tCoffee\njah\tyes\n",
            ["--lp", "et-en"],
            "not valid UTF-8: byte 0xe9 after 'Caf'; save the file as UTF-8",
            b"Caf\xe9\tCoffee\t\tinvalid",
        ),
        (
            b"src\tmt\nTere\tHello\nalone\njah\tyes\n",
            ["--lp", "et-en"],
            "1 instead of 2 cells: 'alone'; check the tabs of this row",
            b"alone\t\t\tinvalid",
        ),
        (
            b"src\tmt\nTere\tHello\na\tb\tc\njah\tyes\n",
            ["--lp", "et-en"],
            "3 instead of 2 cells: 'a\\tb\\tc'; check the tabs of this row",
            b"a\tb c\t\tinvalid",
        ),
        (
            b"src\tmt\tlp\nTere\tHello\tet-en\na\tb\txx-en\njah\tyes\tet-en\n",
            [],
            "unknown language 'xx'; use an ISO 639 code such as et or est, or an English name such as Estonian",
            b"a\tb\txx-en\t\tinvalid",
        ),
        (
            b'src\tmt\n"Tere ""a"""\tHello\n"a\tb\njah\tyes\n',
            ["--lp", "et-en", "--quoting", "csv"],
            "quote mark not closed: '\"a\\tb'; double the quote marks inside quoted cells, or give --quoting none",
            b'"""a"\tb\t\tinvalid',
        ),
    ],
    ids=["invalid UTF-8", "too few cells", "too many cells", "unknown language", "open quote"],
)
def test_a_row_that_cannot_be_used_is_named_and_the_others_are_scored(
    tmp_path: Path,
    content: bytes,
    lp: list[str],
    message: str,
    row: bytes,
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    path = tmp_path / "rows.tsv"
    path.write_bytes(content)
    assert main(["score", str(path), "--quiet", *lp]) == 4
    captured = capfdbinary.readouterr()
    assert captured.err.decode() == f"{path}:3: {message}\n"
    lines = captured.out.split(b"\n")
    assert len(lines) == 5
    assert lines[1].endswith(b"\t5.0000\tok")
    assert lines[2] == row
    assert lines[3].endswith(b"\t3.0000\tok")


@pytest.mark.usefixtures("counting_scorer")
def test_a_finished_file_is_written_although_rows_are_invalid(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rows.tsv").write_bytes(b"src\tmt\n" + b"x\n" * 30)
    assert main(["score", f"{tmp_path}/rows.tsv", "--lp", "et-en", "-o", f"{tmp_path}/out.tsv"]) == 4
    assert (tmp_path / "out.tsv").read_bytes() == b"src\tmt\tqe_score\tqe_status\n" + b"x\t\t\tinvalid\n" * 30
    faults = [line for line in capsys.readouterr().err.splitlines() if "instead of" in line]
    assert len(faults) == 20


def test_standard_input_is_named_in_messages() -> None:
    line = error_of_a_process(3, "score", "-", "--lp", "et-en", stdin=b"a\tb\nc\td\n")
    assert line.startswith("qe-edge: error: stdin:1: no source column among 'a', 'b'; ")
