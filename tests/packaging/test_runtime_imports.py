"""The runtime works without torch, without a network, and starts at once, where everything is installed."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

HEAVY = ("torch", "transformers", "peft", "bitsandbytes", "onnx", "onnxscript", "langcodes")
"""What no usual run imports. langcodes is for languages that are not written as two letters."""

SCORE_THREE_ROWS = """
from qe_edge import Row, Scorer, Status
rows = [
    Row.translation("Alte râuri sunt Tees, Tyne, Tweed.", "Other rivers are Tees, Tyne, Tweed.", "ro", "en"),
    Row.translation("Profesor de drept la Școala Superioară.", "B34: B34: B34: B34: B34: B34:", "ro", "en"),
    Row.translation("", "Other rivers are Tees, Tyne, Tweed.", "ro", "en"),
]
good, bad, empty = Scorer.load().score(rows)
assert good.value > bad.value, (good, bad)
assert empty.value is None and empty.status is Status.EMPTY_SOURCE
"""

LIST_HEAVY = f"""
import sys
print([name for name in {HEAVY} if name in sys.modules])
"""

RUN_COMMAND_LINE = """
from qe_edge.cli import main
assert main() == 0
"""

NO_SOCKETS = """
import ctypes, platform, socket, struct, sys
if sys.platform == "linux" and platform.machine() == "x86_64":
    # the kernel ends a process that asks for a socket (system call 41), in whatever language
    rules = [(0x20, 0, 0, 0), (0x15, 0, 1, 41), (0x06, 0, 0, 0x80000000), (0x06, 0, 0, 0x7FFF0000)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *rule) for rule in rules))
    program = struct.pack("HxxxxxxP", len(rules), ctypes.addressof(code))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    assert prctl(38, 1, 0, 0, 0) == 0 and prctl(22, 2, program, 0, 0) == 0, ctypes.get_errno()
class NoSocket(socket.socket):
    def __init__(self, *args, **kwargs):
        raise OSError("a socket was opened")
def no_lookup(*args, **kwargs):
    raise OSError("an address was looked up")
socket.socket = NoSocket
socket.getaddrinfo = no_lookup
try:
    socket.create_connection(("localhost", 9))
except OSError as error:
    assert str(error) == "an address was looked up"
else:
    raise AssertionError("sockets are not blocked")
"""


def run(script: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a script in a fresh interpreter, at home in the folder that it runs in."""
    command = [sys.executable, "-c", script, *arguments]
    environment = os.environ | {"HOME": str(cwd)}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, env=environment)


def test_heavy_packages_are_installed_here() -> None:
    """Without them the tests below would prove nothing."""
    assert [name for name in HEAVY if find_spec(name) is None] == []


@pytest.mark.parametrize("module", ["qe_edge", "qe_edge.cli", "qe_edge.scoring"])
def test_importing_the_runtime_imports_nothing_heavy(module: str, tmp_path: Path) -> None:
    done = run(f"import {module}\n{LIST_HEAVY}", cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_importing_qe_edge_leaves_onnxruntime_for_later(tmp_path: Path) -> None:
    done = run("import sys, qe_edge\nprint('onnxruntime' in sys.modules)", cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("False\n", "")


def test_scoring_from_python_imports_nothing_heavy(tmp_path: Path) -> None:
    done = run(SCORE_THREE_ROWS + LIST_HEAVY, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


def test_scoring_from_the_command_line_imports_nothing_heavy(sample: Path, tmp_path: Path) -> None:
    done = run(RUN_COMMAND_LINE + LIST_HEAVY, "score", str(sample), "-o", "out.tsv", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
    assert len((tmp_path / "out.tsv").read_text(encoding="utf-8").splitlines()) == 29


def test_scoring_from_python_opens_no_socket(tmp_path: Path) -> None:
    done = run(NO_SOCKETS + SCORE_THREE_ROWS, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_scoring_from_the_command_line_opens_no_socket(sample: Path, tmp_path: Path) -> None:
    done = run(NO_SOCKETS + RUN_COMMAND_LINE, "score", str(sample), "-o", "out.tsv", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["out.tsv"], "nothing is left at home"


@pytest.mark.slow
def test_nothing_is_sent_by_a_process_that_goes_on(tmp_path: Path) -> None:
    """ONNX Runtime sends what it has collected after some ten seconds."""
    waits = "import time\nfor _ in range(8):\n    time.sleep(5)\n    list(Scorer.load().score(rows))\n"
    done = run(NO_SOCKETS + SCORE_THREE_ROWS + waits, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.iterdir())
