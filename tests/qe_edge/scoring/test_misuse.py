"""What a calling program does wrong is one error with the value, raised before anything hangs or is scored wrongly."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from qe_edge import Row, Scorer
from qe_edge.errors import UsageError

GOOD = Row.translation("Tere", "Hello", "et", "en")


@pytest.fixture
def scorer(counting_bundle: Path) -> Scorer:
    return Scorer.load(counting_bundle, device="cpu", threads=1)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"device": "tpu"}, "device 'tpu': give auto, cpu or cuda"),
        ({"device": None}, "device None: give auto, cpu or cuda"),
        ({"threads": -1}, "threads=-1: give a whole number from 1, or None"),
        ({"threads": 0}, "threads=0: give a whole number from 1, or None"),
        ({"threads": 1.5}, "threads=1.5: give a whole number from 1, or None"),
        ({"gpu_mem_limit": 0}, "gpu_mem_limit=0: give a whole number from 1, or None"),
    ],
)
def test_an_argument_that_cannot_work_is_refused(counting_bundle: Path, argument: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Scorer.load(counting_bundle, **argument)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("texts", "language", "message"),
    [
        ((None, "x"), "et", "row 2: texts and languages must be strings, not None"),
        (("x", b"y"), "et", "row 2: texts and languages must be strings, not b'y'"),
        (("x", 3), "et", "row 2: texts and languages must be strings, not 3"),
        (("x", "y"), None, "row 2: texts and languages must be strings, not None"),
        ("ab", "et", "row 2: texts must be a tuple of strings, not 'ab'"),
    ],
)
def test_a_row_of_anything_but_strings_is_refused_by_its_number(
    scorer: Scorer, texts: Any, language: Any, message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        list(scorer.score([GOOD, Row(texts, language, "en")]))
    assert str(caught.value) == message


@pytest.mark.parametrize("thing", [("Tere", "Hello"), "Tere", None, {"source": "Tere"}])
def test_what_is_no_row_is_refused_by_its_number(scorer: Scorer, thing: Any) -> None:
    with pytest.raises(UsageError) as caught:
        list(scorer.score([GOOD, thing]))
    assert str(caught.value) == f"row 2: must be a qe_edge.Row, not {thing!r}; make one with Row.translation"


@pytest.mark.parametrize("thing", [GOOD, None, 7])
def test_what_holds_no_rows_is_refused(scorer: Scorer, thing: Any) -> None:
    with pytest.raises(UsageError, match=r"^rows must be a list or another iterable of qe_edge\.Row, not "):
        scorer.score(thing)


def test_a_nul_is_a_character_of_a_text(scorer: Scorer) -> None:
    (score,) = scorer.score([Row.translation("Te\0re", "Hello", "et", "en")])
    assert score.value == 7.0


def test_a_closed_scorer_scores_nothing_and_says_so_at_once(scorer: Scorer) -> None:
    assert [score.value for score in scorer.score([GOOD])] == [7.0]
    scorer.close()
    scorer.close()
    with pytest.raises(UsageError, match=r"^this scorer is closed; load another one$"):
        scorer.score([GOOD])


def test_a_scorer_that_another_thread_closes_says_so_with_a_cache_as_without(
    counting_bundle: Path, tmp_path: Path
) -> None:
    for number in range(20):
        with Scorer.load(counting_bundle, device="cpu", threads=1, cache=tmp_path / f"{number}.db") as scorer:
            rows = [Row.translation(f"Tere {row}", "Hello", "et", "en") for row in range(6000)]
            with ThreadPoolExecutor(1) as thread:
                scores = thread.submit(list, scorer.score(rows))
                time.sleep(0.005 * number)
                scorer.close()
                with pytest.raises(UsageError, match=r"^this scorer is closed; load another one$"):
                    scores.result()


FORKED = """
import os, sys
from qe_edge import Row, Scorer
from qe_edge.errors import UsageError
from qe_edge.scoring import scorer as module
module.WINDOW = 2
bundle, cache = sys.argv[1:]
scorer = Scorer.load(bundle, device="cpu", threads=1, cache=cache)
rows = [Row.translation("Tere", f"Hello {n}", "et", "en") for n in range(9)]
begun = scorer.score(rows)
next(begun)
child = os.fork()
if child == 0:
    for score in (lambda: scorer.score(rows[:1]), lambda: list(begun)):
        try:
            score()
        except UsageError as error:
            print(error, flush=True)
    scorer.close()
    print("closed", flush=True)
    os._exit(0)
os.waitpid(child, 0)
print(len(list(begun)), len(list(scorer.score(rows))))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks on this system")
def test_a_forked_child_is_told_instead_of_waiting_for_ever_and_disturbs_no_one(
    counting_bundle: Path, tmp_path: Path
) -> None:
    # From Python 3.12 on a fork of a process with threads warns by itself.
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKED]
    command += [str(counting_bundle), str(tmp_path / "cache")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    first, second, *others = done.stdout.splitlines()
    assert done.stderr == ""
    assert first == second
    assert first.startswith("this scorer was loaded before the process was forked; load one in each process, or")
    assert others == ["closed", "8 9"]
