"""The command line starts at once, without the heavy packages, and ends without a traceback."""

from __future__ import annotations

import io
import subprocess
import sys
from contextlib import redirect_stdout
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import typer

from qe_edge import __version__, cli
from qe_edge.cli import main
from qe_edge.commands.extras import require
from qe_edge.errors import InputError, MissingExtraError

HEAVY = ("torch", "transformers", "peft", "onnx", "onnxruntime", "numpy", "tokenizers", "langcodes", "py3langid")


@pytest.mark.parametrize("arguments", [["--help"], ["score", "--help"], ["inspect", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom qe_edge.cli import main\n"
        f"assert main({arguments}) == 0\n"
        f"print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "[]"


def test_help_names_every_option_that_the_documentation_names(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["score", "--help"])
    text = capsys.readouterr().out
    documented = (repository / "docs" / "scoring.md").read_text()
    options = {word.strip("[],") for word in text.split() if word.startswith("--")} - {"--help"}
    assert len(options) == 17
    assert {option for option in options if f"`{option}" not in documented} == set()


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"qe-edge {__version__}\n"


def with_command(monkeypatch: pytest.MonkeyPatch, command: object) -> None:
    """An extension that adds the command `extra`."""

    class Entry:
        name = "extra"

        def load(self) -> object:
            return lambda app: app.command("extra")(command)

    monkeypatch.setattr(cli, "entry_points", lambda group: [Entry()] if group == "qe_edge.commands" else [])


def test_other_packages_add_commands(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with_command(monkeypatch, lambda: typer.echo("done"))
    assert main(["extra"]) == 0
    assert capsys.readouterr().out == "done\n"


def test_what_is_printed_can_be_kept_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    with redirect_stdout(io.StringIO()) as kept:
        assert main(["--version"]) == 0
    assert kept.getvalue() == f"qe-edge {__version__}\n"
    assert capsys.readouterr().out == ""


def test_an_extension_that_cannot_be_imported_is_named_and_the_other_commands_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = EntryPoint("broken", "no_such_package.commands:register", "qe_edge.commands")
    monkeypatch.setattr(cli, "entry_points", lambda group: [entry])
    assert main(["--version"]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"qe-edge {__version__}\n"
    assert captured.err == "qe-edge: command 'broken' is not available: No module named 'no_such_package'\n"


def test_a_user_error_is_one_line_and_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise InputError("f.tsv:3: wrong; mend it")

    with_command(monkeypatch, fail)
    assert main(["extra"]) == 3
    assert capsys.readouterr().err == "qe-edge: error: f.tsv:3: wrong; mend it\n"


def test_an_interrupt_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    with_command(monkeypatch, interrupted)
    assert main(["extra"]) == 130
    assert capsys.readouterr().err == "qe-edge: interrupted\n"


def test_a_reader_that_leaves_early_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "many.tsv").write_text("src\tmt\n" + "Tere\tHello\n" * 100_000)
    code = (
        "import sys\nimport qe_edge.commands.score as command\nfrom qe_edge.cli import main\n"
        "from qe_edge.rows import Score, Status\n"
        "class Fast:\n    signature = 'fast'\n    def close(self):\n        pass\n"
        "    def score(self, rows):\n        return (Score(1.0, Status.OK) for _ in rows)\n"
        "command.load_scorer = lambda *_: Fast()\n"
        f"sys.exit(main(['score', '{tmp_path}/many.tsv', '--lp', 'et-en', '-q']))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == b"src\tmt\tqe_score\tqe_status\n"
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 1


def test_a_missing_extra_says_what_to_install() -> None:
    require("train", "typer", "json")
    with pytest.raises(MissingExtraError) as caught:
        require("train", "typer", "no_such_package", "nor_this_one")
    assert str(caught.value) == (
        "this command needs no_such_package, nor_this_one, which a plain install leaves out; "
        "install with: pip install 'qe-edge[train]'"
    )
    assert caught.value.exit_code == 9
