"""A training whose disk is full ends in one line, and the same command continues once there is room."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tomli_w

from qe_edge_train.recipe import Recipe, recipe_table

NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount"]
SCENARIO = """
import contextlib, io, json, subprocess, sys
from pathlib import Path
import qe_edge.cli as cli

command, recipe, tables, disk, *sizes = sys.argv[1:]

def mount(*options):
    subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join(options), "none", disk], check=True)

def run():
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        code = cli.main([command, recipe, "-o", f"{disk}/out", "--data", tables, "--device", "cpu", "-q"])
    return code, said.getvalue()

rounds = []
for size in sizes:
    mount(f"size={size}k")
    first = run()
    left = sorted(path.name for path in Path(disk).rglob("*.part"))
    files = len(list(Path(disk).rglob("*")))
    mount("remount", "size=8m")
    rounds.append([*first, left, files, *run()])
    subprocess.run(["umount", disk], check=True)
print(json.dumps(rounds))
"""
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="mounts of Linux")


@pytest.fixture(scope="module")
def mounts() -> None:
    """Skip where an ordinary process may not mount a file system for itself."""
    tried = [*NAMESPACE, "mount", "-t", "tmpfs", "none", "/mnt"]
    if shutil.which("unshare") is None or subprocess.run(tried, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")


def check(command: str, content: dict[str, object], tables: Path, folder: Path, sizes: list[int]) -> None:
    """On a disk of each size but the last (in kB) the command fails in one line, and ends well when there is room."""
    recipe, disk = folder / "recipe.toml", folder / "disk"
    recipe.write_text(tomli_w.dumps(content), encoding="utf-8")
    disk.mkdir()
    process = [*NAMESPACE, sys.executable, "-c", SCENARIO, command, str(recipe), str(tables), str(disk)]

    done = subprocess.run([*process, *map(str, sizes)], capture_output=True, text=True, check=False, timeout=600)

    assert (done.returncode, done.stderr) == (0, "")
    rounds = json.loads(done.stdout)
    for code, said, left, _, code_after, said_after in rounds[:-1]:
        assert code == 5, said
        assert said.startswith(f"qe-edge: error: {disk}/out: cannot be written: ")
        assert said.endswith("; make room or allow writing there, and the same command continues\n")
        assert said.count("\n") == 1
        assert "No space left on device" in said
        assert left == []
        assert (code_after, said_after) == (0, "")
    assert rounds[-1][0] == 0, rounds[-1]
    assert len({files for _, _, _, files, *_ in rounds[:-1]}) > 2  # they failed at different places


@pytest.mark.usefixtures("mounts")
def test_a_training_on_a_full_disk_ends_in_one_line_and_continues(recipe: Recipe, tables: Path, tmp_path: Path) -> None:
    short = dataclasses.replace(
        recipe,
        optimiser=dataclasses.replace(recipe.optimiser, epochs=1),
        train=(dataclasses.replace(recipe.train[0], rows=16),),
    )
    check("train", recipe_table(short), tables, tmp_path, [4, 28, 40, 60, 100, 4000])
