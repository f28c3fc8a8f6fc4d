"""An output, journal, cache or tuning that finds no room ends the run in one line, and loses nothing of what it kept.

Each scenario runs in a process of its own, on a small file system that only this process sees where the machine allows
that (`unshare`), or under the system's limit of file sizes.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="mounts and limits of Linux")
NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount"]

START = """
import contextlib, functools, io, json, os, resource, subprocess, sys
from pathlib import Path
import qe_edge.cli as cli, qe_edge.commands.score as command, qe_edge.table.output as output
from qe_edge.rows import Score, Status

class Fake:
    signature = "fake"
    def score(self, rows):
        return (Score(float(len(row.texts[1])), Status.OK) for row in rows)
    def close(self):
        pass

real, command.load_scorer = command.load_scorer, lambda *_: Fake()
output.CHECKPOINT_ROWS = 64
cli.build = functools.cache(cli.build)
folder, bundle = Path(sys.argv[1]), sys.argv[2]
disk = folder / "disk"
table = folder / "in.tsv"
table.write_text("source\\tmt\\n" + "".join(f"a{n}\\tb{'b' * (n % 7)}\\n" for n in range(600)))

def run(target, *more):
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        code = cli.main(["score", str(table), "--lp", "et-en", "-m", bundle, "-o", str(target), *more])
    return code, said.getvalue()

def mount(*options):
    subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join(options), "none", str(disk)], check=True)

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

def difference(target, whole):
    return target.read_bytes() != whole.read_bytes() or sorted(path.name for path in target.parent.glob(".*"))

disk.mkdir()
assert run(folder / "whole.tsv")[0] == 0
found = []
"""

FULL_DISK = """
for pages in (1, 2, 3, 4, 6, 11):
    mount(f"size={4 * pages}k")
    first = run(disk / "out.tsv")
    mount("remount", "size=1m")
    second = run(disk / "out.tsv")
    found.append([*first, *second, difference(disk / "out.tsv", folder / "whole.tsv")])
    subprocess.run(["umount", str(disk)], check=True)
print(json.dumps(found))
"""

FILE_LIMIT = """
for size in (0, 300, 4096, 8192, 100_000):
    limit(size)
    first = run(disk / "out.tsv")
    limit(resource.RLIM_INFINITY)
    second = run(disk / "out.tsv")
    found.append([*first, *second, difference(disk / "out.tsv", folder / "whole.tsv")])
    (disk / "out.tsv").unlink()
print(json.dumps(found))
"""

READ_ONLY = """
mount("size=1m")
(disk / "out.tsv").write_text("old")
mount("remount", "ro")
print(json.dumps([*run(disk / "out.tsv"), (disk / "out.tsv").read_text(), os.listdir(disk)]))
"""

CACHE = """
import qe_edge.scoring.scorer as scorer
from qe_edge.cache import cache_info
command.load_scorer, scorer.WINDOW = real, 64
assert run(folder / "whole.tsv")[0] == 0
mount("size=24k")
first = run(folder / "out.tsv", "--cache", str(disk / "cache"))
some = cache_info(disk / "cache").scores
mount("remount", "size=1m")
second = run(folder / "out.tsv", "--cache", str(disk / "cache"))
print(json.dumps([*first, list(some.values()), *second, difference(folder / "out.tsv", folder / "whole.tsv"),
                  list(cache_info(disk / "cache").scores.values())]))
"""

TUNING = """
from qe_edge.errors import OutputError
from qe_edge.scoring.tuning import Tuning, load_tuning, save_tuning
mount("size=64k")
(disk / "bundle").mkdir()
save_tuning(disk / "bundle", Tuning(2, 192))
with contextlib.suppress(OSError), (disk / "rest").open("wb", buffering=0) as rest:
    while True:
        rest.write(bytes(4096))
try:
    save_tuning(disk / "bundle", Tuning(3, 384))
except OutputError as error:
    kept = load_tuning(disk / "bundle")
    print(json.dumps([str(error), [kept.workers, kept.token_budget], sorted(os.listdir(disk))]))
"""


@pytest.fixture(scope="module")
def mounts() -> None:
    """Skip where an ordinary process may not mount a file system for itself."""
    tried = [*NAMESPACE, "mount", "-t", "tmpfs", "none", "/mnt"]
    if shutil.which("unshare") is None or subprocess.run(tried, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")


def outcome(scenario: str, bundle: Path, *, mounted: bool = True) -> Any:
    """What a scenario prints, as JSON. It works in the folder of the bundle."""
    command = [*(NAMESPACE if mounted else []), sys.executable, "-c", START + scenario, str(bundle.parent), str(bundle)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def check_rounds(rounds: list[Any], error: str) -> None:
    """Every round failed in this way, or had room enough; all were finished by the same command afterwards."""
    kept = set()
    for code, said, code_after, said_after, difference in rounds:
        assert (code_after, difference) == (0, []), said_after
        if code == 0:
            continue
        assert code == 5
        *before, last = said.splitlines()
        assert last == error
        told = [line for line in before if "the same command continues" in line]
        again = [line for line in said_after.splitlines() if line.startswith("continuing after")]
        assert len(told) == len(again) <= 1
        if told:
            rows = told[0].split()[0]
            assert again == [f"continuing after {rows} rows of an interrupted run"]
            kept.add(int(rows))
        else:
            kept.add(0)
    assert rounds[0][0] == 5
    assert rounds[-1][0] == 0
    assert len(kept) > 2  # it failed at different places


@pytest.mark.usefixtures("mounts")
def test_a_disk_that_is_full_at_any_point_keeps_what_was_noted(tmp_path: Path, counting_bundle: Path) -> None:
    remedy = "free some space there and give the same command again"
    error = f"qe-edge: error: {tmp_path}/disk/out.tsv: cannot be written (No space left on device); {remedy}"
    check_rounds(outcome(FULL_DISK, counting_bundle), error)


def test_a_limit_of_file_sizes_keeps_what_was_noted(tmp_path: Path, counting_bundle: Path) -> None:
    remedy = "files may grow no larger there: raise the limit (ulimit -f), or give another -o"
    error = f"qe-edge: error: {tmp_path}/disk/out.tsv: cannot be written (File too large); {remedy}"
    check_rounds(outcome(FILE_LIMIT, counting_bundle, mounted=False), error)


@pytest.mark.usefixtures("mounts")
def test_a_read_only_file_system_is_said_and_the_old_file_stays(tmp_path: Path, counting_bundle: Path) -> None:
    code, said, old, files = outcome(READ_ONLY, counting_bundle)
    assert (code, old, files) == (5, "old", ["out.tsv"])
    assert said == (
        f"qe-edge: error: {tmp_path}/disk/out.tsv: cannot be written (Read-only file system); "
        "the file system is read-only: give another -o\n"
    )


@pytest.mark.usefixtures("mounts")
def test_a_score_cache_on_a_full_disk_stays_whole_and_the_same_command_continues(
    tmp_path: Path, counting_bundle: Path
) -> None:
    code, said, some, code_after, said_after, difference, all_scores = outcome(CACHE, counting_bundle)
    assert code == 5
    assert said.splitlines()[-1].startswith(
        f"qe-edge: error: {tmp_path}/disk/cache: cannot be used as a score cache (database or disk is full); "
    )
    assert (code_after, difference) == (0, []), said_after
    assert 0 < sum(some) < 600
    assert all_scores == [600]


@pytest.mark.usefixtures("mounts")
def test_a_tuning_on_a_full_disk_leaves_the_old_one(tmp_path: Path, counting_bundle: Path) -> None:
    error, kept, files = outcome(TUNING, counting_bundle)
    assert error.startswith(
        f"{tmp_path}/disk/bundle.tuning.json: cannot be written: No space left on device; free some"
    )
    assert (kept, files) == ([2, 192], ["bundle", "bundle.tuning.json", "rest"])
