"""A run that is killed between any two of its writes is finished by the same command, in the same bytes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="kill -9 and fork are POSIX")

KILLED = """
import functools, io, itertools, json, os, signal, sys
from pathlib import Path
import qe_edge.cli as cli, qe_edge.commands.score as command, qe_edge.table.output as output
from qe_edge.rows import Score, Status

class Fake:
    signature = "fake"

    def score(self, rows):
        return (Score(float(len(row.texts[1])), Status.OK) for row in rows)

    def close(self):
        pass

command.load_scorer = lambda *_: Fake()
output.CHECKPOINT_ROWS = 4
cli.build = functools.cache(cli.build)
folder, bundle = Path(sys.argv[1]), sys.argv[2]
table, whole, target = (folder / name for name in ("in.tsv", "whole.tsv", "out.tsv"))
table.write_text("source\\tmt\\n" + "".join(f"a{n}\\t{'b' * n}\\n" for n in range(14)))

def scored(path):
    return cli.main(["score", str(table), "--lp", "et-en", "-m", bundle, "-o", str(path), "-q"])

def scored_and_killed(point):
    # before the call of that number among all that change the output or what lies beside it
    calls = itertools.count(1)

    def killing(function):
        def call(*arguments, **options):
            elsewhere = isinstance(arguments[0], (str, Path)) and not str(arguments[0]).startswith(f"{folder}/.out")
            if not elsewhere and next(calls) == point:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)
        return call

    for owner, names in (
        (os, ["open", "fsync", "replace", "unlink"]),
        (io, ["open"]),
        (output.Output, ["flush"]),
    ):
        for name in names:
            setattr(owner, name, killing(getattr(owner, name)))
    return scored(target)

def child(function, *arguments):
    # exit code of a process of its own
    pid = os.fork()
    if pid == 0:
        sys.stderr = open(os.devnull, "w")
        os._exit(function(*arguments))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

cli.build()
assert child(scored, whole) == 0
kept = killed = 0
while child(scored_and_killed, killed + 1) == -signal.SIGKILL:
    killed += 1
    kept += (folder / ".out.tsv.journal").exists() and (folder / ".out.tsv.part").exists()
    assert child(scored, target) == 0, f"after kill {killed}"
    assert target.read_bytes() == whole.read_bytes(), f"after kill {killed}"
    left = [path.name for path in folder.glob(".*")]
    assert left == [], f"after kill {killed}: {left}"
    target.unlink()
print(json.dumps([killed, kept]))
"""


def test_a_run_killed_before_each_of_its_writes_ends_in_the_same_bytes(tmp_path: Path, counting_bundle: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path), str(counting_bundle)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert (done.returncode, done.stderr) == (0, "")
    killed, kept = json.loads(done.stdout)
    assert killed > 20
    assert kept > 10
