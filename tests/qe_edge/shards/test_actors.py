"""Shards on Ray: workers and drivers are killed for good, and the output is that of one process."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from qe_edge.bundle import open_bundle
from qe_edge.commands.loading import Loading
from qe_edge.errors import BundleError, InputError, MissingExtraError, OutOfMemoryError, OutputError
from qe_edge.scoring.machine import physical_cores
from qe_edge.scoring.scorer import signature
from qe_edge.shards.actors import ATTEMPTS, ShardScorer, Work, score_on_ray
from qe_edge.shards.attempts import Attempts
from qe_edge.shards.folder import find_shards
from qe_edge.shards.shard import Options
from tests.qe_edge.shards.conftest import command, contents, run, write_folder, write_tsv

ROWS = 20_000
"""of each table: some checkpoints of the usual 1024 rows, and long enough to be killed in when a worker starts late"""
SCORING = b"ray::MapWorker(Map(ShardScorer)).submit"
"""what an actor of Ray Data calls its process while it scores"""
needs_two_workers = pytest.mark.skipif(
    not Path("/proc/self/stat").exists() or physical_cores() < 2, reason="finds two workers in /proc, on a core each"
)


def descendants(process: int) -> list[int]:
    """Processes that this one has begun, and those that they have."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended meanwhile
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])

    def descends(one: int) -> bool:
        return one in parents and (parents[one] == process or descends(parents[one]))

    return [one for one in parents if descends(one)]


def workers_of(process: int) -> list[int]:
    """Process numbers of the workers that are scoring, of one driver or node."""
    scoring = []
    for one in descendants(process):
        with suppress(OSError):
            if SCORING in Path(f"/proc/{one}/cmdline").read_bytes():
                scoring.append(one)
    return scoring


def wait_for(process: subprocess.Popen[str], target: Path, pattern: str, files: int = 1) -> None:
    """Until there are so many files of this name."""
    while process.poll() is None and len(list(target.glob(pattern))) < files:
        time.sleep(0.03)
    assert process.poll() is None, process.communicate()[1]


def started(folder: Path, target: Path, bundle: Path) -> subprocess.Popen[str]:
    options = ["--engine", "ray", "--workers", "2"]
    arguments = command(folder, target, bundle, *options)
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    for seed, name in enumerate("abcd"):
        write_tsv(tmp_path / "in" / f"{name}.tsv", ROWS, seed)
    return tmp_path / "in"


@needs_two_workers
def test_a_killed_worker_is_replaced_and_the_output_is_that_of_one_process(
    folder: Path, tmp_path: Path, bundle: Path
) -> None:
    target, whole = tmp_path / "out", tmp_path / "whole"
    process = started(folder, target, bundle)
    wait_for(process, target, ".*.journal", 2)  # both workers have noted rows
    killed = workers_of(process.pid)
    assert killed, "no worker was found"
    os.kill(killed[0], signal.SIGKILL)
    printed, said = process.communicate()
    assert process.returncode == 0, said
    assert not printed
    assert "ray" not in said.lower(), "Ray's own messages are no business of the user"
    assert re.search(r"^  continuing after \d+ rows of an interrupted run$", said, re.MULTILINE), said

    assert run(*command(folder, whole, bundle)).returncode == 0
    assert contents(target) == contents(whole)


@pytest.mark.slow
@needs_two_workers
def test_after_the_driver_is_killed_finished_tables_stay_and_others_are_continued(
    folder: Path, tmp_path: Path, bundle: Path
) -> None:
    target, whole = tmp_path / "out", tmp_path / "whole"
    process = started(folder, target, bundle)
    wait_for(process, target, ".*.done")
    process.kill()
    process.communicate()
    assert 0 < len(contents(target)) < 4, "it was killed too late"
    while list(target.glob(".*.lock")):  # workers outlive their driver for a moment
        if not any(SCORING[:-8] in path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline")):
            break
        time.sleep(0.1)

    done = run(*command(folder, target, bundle, "--engine", "ray", "--workers", "2"))
    assert done.returncode == 0, done.stderr
    assert f"{ROWS} rows, finished before" in done.stderr
    assert run(*command(folder, whole, bundle)).returncode == 0
    assert contents(target) == contents(whole)


@pytest.mark.slow
@needs_two_workers
def test_every_kind_of_table_comes_out_as_in_one_process_and_a_bad_one_is_named(tmp_path: Path, bundle: Path) -> None:
    folder = write_folder(tmp_path / "in", 300)
    (folder / "bad.parquet").write_bytes(b"no Parquet")
    done = run(*command(folder, tmp_path / "out", bundle, "--engine", "ray", "--workers", "2"))
    assert done.returncode == 3
    assert f"bad.parquet: not finished: {folder}/bad.parquet: not a Parquet file" in done.stderr
    assert "Traceback" not in done.stderr
    assert run(*command(folder, tmp_path / "whole", bundle)).returncode == 3
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert len(contents(tmp_path / "out")) == 4


@pytest.mark.slow
def test_more_workers_than_cores_are_refused(tmp_path: Path, bundle: Path) -> None:
    folder = write_folder(tmp_path / "in", 3)
    done = run(*command(folder, tmp_path / "out", bundle, "--engine", "ray", "--workers", "1000"))
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("qe-edge: error: --workers 1000: there is room for ")


@pytest.mark.slow
@needs_two_workers
def test_a_shard_over_which_workers_die_again_and_again_is_given_up_and_the_others_are_finished(
    folder: Path, tmp_path: Path, bundle: Path
) -> None:
    target = tmp_path / "out"
    write_tsv(folder / "a.tsv", 20 * ROWS, 1)
    process = started(folder, target, bundle)
    note, killed = target / ".a.tsv.tried", set[int]()
    while process.poll() is None and len(killed) < ATTEMPTS:
        tried = note.read_text().split() if note.is_file() else []
        if len(tried) == 2 and int(tried[1]) == len(killed) + 1:
            # whoever holds the output's lock is scoring it
            new = [worker for worker in workers_of(process.pid) if worker not in killed and holds(worker, target)]
            for worker in new:
                os.kill(worker, signal.SIGKILL)
                killed.add(worker)
        time.sleep(0.02)
    _, said = process.communicate()
    assert process.returncode == 3, said
    assert f"{folder}/a.tsv: 3 workers died over it" in said
    assert "3 of 4 tables" in said
    assert not list(target.glob(".*.tried"))
    assert run(*command(folder, target, bundle)).returncode == 0, "the same command goes on"
    assert run(*command(folder, tmp_path / "whole", bundle)).returncode == 0
    assert contents(target) == contents(tmp_path / "whole")


@pytest.mark.slow
def test_a_table_may_take_longer_than_ray_data_waits_for_one(tmp_path: Path, bundle: Path) -> None:
    (tmp_path / "in").mkdir()
    write_tsv(tmp_path / "in" / "a.tsv", 5 * ROWS)
    waits = os.environ | {"RAY_DATA_EXECUTION_NO_PROGRESS_TIMEOUT_S": "1"}  # half an hour if not told
    arguments = command(tmp_path / "in", tmp_path / "out", bundle, "--engine", "ray")
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, env=waits)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_finished_table_is_told_while_the_next_one_is_scored(tmp_path: Path, bundle: Path) -> None:
    (tmp_path / "in").mkdir()
    write_tsv(tmp_path / "in" / "a.tsv", 3)
    write_tsv(tmp_path / "in" / "b.tsv", 10 * ROWS)
    options = ["--engine", "ray", "--workers", "1"]
    arguments = command(tmp_path / "in", tmp_path / "out", bundle, *options)
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert any(line.startswith("a.tsv: 3 rows in ") for line in process.stderr)
        assert not (tmp_path / "out" / "b.tsv").exists()
        assert "2 of 2 tables" in process.stderr.read()


BROKEN = """
import sys
import qe_edge.shards.actors as actors
class Broken(actors.ShardScorer):
    def score(self, shard): raise KeyError("what nobody foresaw")
actors.ShardScorer = Broken
from qe_edge.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_what_nobody_foresaw_in_a_worker_ends_the_run_with_one_line(tmp_path: Path, bundle: Path) -> None:
    folder = write_folder(tmp_path / "in", 3)
    python, option, _, *arguments = command(folder, tmp_path / "out", bundle, "--engine", "ray", "--workers", "1")
    done = run(python, option, BROKEN, *arguments)
    assert done.returncode == 7, done.stderr
    assert not done.stdout
    *_, told, error = done.stderr.splitlines()
    assert told.startswith("0 of 4 tables are finished")
    assert error.startswith("qe-edge: error: Ray Data: cannot go on (KeyError: 'what nobody foresaw'); ")
    assert "Traceback" not in done.stderr


def holds(process: int, target: Path) -> bool:
    """Whether a process has the half-written output of a.tsv open."""
    try:
        opened = {str(path.readlink()) for path in Path(f"/proc/{process}/fd").iterdir()}
    except OSError:
        return False
    return str(target / ".a.tsv.part") in opened


def work(bundle: Path) -> Work:
    return Work(bundle, signature(open_bundle(bundle), "cpu"), Options(lp="et-en"), Loading("cpu", 1, None))


def test_a_worker_with_another_bundle_refuses_to_score(tmp_path: Path, bundle: Path) -> None:
    folder = write_folder(tmp_path / "in", 3)
    (shard, *_) = find_shards(folder, tmp_path / "out")
    outcome = ShardScorer(replace(work(bundle), signature="another"), "run").score(shard)
    assert isinstance(outcome.error, BundleError)
    assert "give all machines the same bundle" in str(outcome.error)
    assert not list((tmp_path / "out").iterdir())


def test_the_attempts_of_one_run_are_bounded_and_those_of_another_are_not_counted(tmp_path: Path, bundle: Path) -> None:
    folder = write_folder(tmp_path / "in", 3)
    (shard, *_) = find_shards(folder, tmp_path / "out")
    died = Attempts(shard, "run")
    assert [died.begin() for _ in range(ATTEMPTS)] == [1, 2, 3]

    outcome = ShardScorer(work(bundle), "run").score(shard)
    assert isinstance(outcome.error, InputError)
    assert f"{shard.source}: 3 workers died over it" in str(outcome.error)
    assert not list((tmp_path / "out").iterdir())

    for _ in range(ATTEMPTS):
        died.begin()
    assert ShardScorer(work(bundle), "another run").score(shard).error is None
    assert not list((tmp_path / "out").glob(".*.tried"))


def test_an_attempt_is_noted_before_the_bundle_is_loaded(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (shard, *_) = find_shards(write_folder(tmp_path / "in", 3), tmp_path / "out")
    notes: list[str] = []

    def load(self: ShardScorer) -> None:
        notes.extend(path.name for path in (tmp_path / "out").iterdir())
        raise MemoryError

    monkeypatch.setattr(ShardScorer, "_load", load)
    assert isinstance(ShardScorer(work(bundle), "run").score(shard).error, OutOfMemoryError)
    assert notes == [".a.tsv.tried"]
    assert not list((tmp_path / "out").iterdir())


def test_the_note_of_a_killed_run_goes_when_one_process_goes_on(tmp_path: Path, bundle: Path) -> None:
    folder = write_folder(tmp_path / "in", 3)
    Attempts(find_shards(folder, tmp_path / "out")[0], "killed").begin()
    assert run(*command(folder, tmp_path / "out", bundle)).returncode == 0
    assert not list((tmp_path / "out").glob(".*.tried"))


def test_an_output_that_cannot_be_written_is_an_outcome(tmp_path: Path, bundle: Path) -> None:
    folder = write_folder(tmp_path / "in", 3)
    (tmp_path / "out").write_text("a file where a folder should be")
    shard = replace(find_shards(folder, tmp_path / "elsewhere")[0], target=tmp_path / "out" / "a.tsv")
    outcome = ShardScorer(work(bundle), "run").score(shard)
    assert isinstance(outcome.error, OutputError)


def test_without_ray_the_extra_is_named(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qe_edge.commands.extras.find_spec", lambda module: None)
    with pytest.raises(MissingExtraError, match=r"needs ray.*qe-edge\[ray\]"):
        next(score_on_ray([], work(bundle), None, None))


def test_the_command_line_does_not_import_ray_pandas_or_pyarrow(bundle: Path, tmp_path: Path) -> None:
    write_tsv(tmp_path / "a.tsv", 3)
    script = (
        "import sys; from qe_edge.cli import main; main(sys.argv[1:]);"
        "print([name for name in ('ray', 'pyarrow', 'pandas') if name in sys.modules])"
    )
    arguments = ["score", str(tmp_path / "a.tsv"), "-o", str(tmp_path / "b.tsv"), "-m", str(bundle), "--lp", "et-en"]
    assert run(sys.executable, "-c", script, *arguments).stdout == "[]\n"
