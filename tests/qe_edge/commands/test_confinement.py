"""`qe-edge score` with a stranger's bundle needs no network and writes nowhere but to the output."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

NO_NETWORK = """
import os, sys
def deny(event, arguments):
    # also what is not Python's own socket class; a unix socket is no network
    if event.startswith("socket.") and event != "socket.gethostname":
        raise PermissionError(f"denied: {event}")
sys.addaudithook(deny)
import socket
try:
    socket.socket()
except PermissionError:
    pass
else:
    raise AssertionError("sockets are not denied")
from qe_edge.cli import main
assert main() == 0
opened = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
assert not [path for path in opened if "socket:" in path], opened
"""
READ_ONLY = 'mount --make-rprivate / && mount -o bind "$1" "$1" && mount -o remount,bind,ro / && shift && exec "$@"'
"""A shell script for a mount namespace of its own: everything is read-only but the folder in its first argument."""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "in.tsv"
    path.write_text("lp\tsrc\tmt\n" + "et-en\tTere hommikust\tGood morning\n" * 3, encoding="utf-8")
    return path


def scored(path: Path) -> list[str]:
    return [line.split("\t")[3] for line in path.read_text(encoding="utf-8").splitlines()[1:]]


def test_no_socket_is_opened(counting_bundle: Path, table: Path, tmp_path: Path) -> None:
    arguments = ["score", str(table), "-m", str(counting_bundle), "-o", str(tmp_path / "out.tsv"), "--device", "cpu"]
    done = subprocess.run(
        [sys.executable, "-c", NO_NETWORK, *arguments], capture_output=True, text=True, check=False, cwd=tmp_path
    )

    assert done.returncode == 0, done.stderr
    assert scored(tmp_path / "out.tsv") == ["9.0000"] * 3


def test_it_runs_where_there_is_no_network_at_all(counting_bundle: Path, table: Path, tmp_path: Path) -> None:
    command = namespace("--net")
    arguments = ["score", str(table), "-m", str(counting_bundle), "-o", str(tmp_path / "out.tsv"), "--device", "cpu"]
    done = subprocess.run(
        [*command, sys.executable, "-m", "qe_edge", *arguments], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert scored(tmp_path / "out.tsv") == ["9.0000"] * 3


def test_everything_but_the_output_folder_may_be_read_only(counting_bundle: Path, table: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    confined = [*namespace("--mount"), "sh", "-c", READ_ONLY, "sh", str(folder)]
    probe = subprocess.run([*confined, "touch", str(tmp_path / "x")], capture_output=True, text=True, check=False)
    if probe.returncode == 0 or "Read-only file system" not in probe.stderr:
        pytest.skip(f"this machine lets no process see its files as read-only: {probe.stderr.strip()}")

    arguments = ["score", str(table), "-m", str(counting_bundle), "-o", str(folder / "out.tsv"), "--device", "cpu"]
    done = subprocess.run(
        [*confined, sys.executable, "-m", "qe_edge", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TMPDIR": str(tmp_path), "HOME": str(tmp_path)},
    )

    assert done.returncode == 0, done.stderr
    assert scored(folder / "out.tsv") == ["9.0000"] * 3
    assert [path.name for path in folder.iterdir()] == ["out.tsv"]


def namespace(kind: str) -> list[str]:
    """The beginning of a command that runs in a namespace of its own; skips the test where that is not allowed."""
    program = shutil.which("unshare")
    if program is None:
        pytest.skip("no program unshare")
    command = [program, "--map-root-user", "--user", kind] if os.geteuid() else [program, kind]
    done = subprocess.run([*command, "true"], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no namespaces here: {done.stderr.strip()}")
    return command
