"""Languages are detected from few rows, or the run stops and asks."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from qe_edge.errors import InputError
from qe_edge.table.detection import Detected, detect_pair

SAMPLES = sorted((Path(__file__).parent / "data").glob("*.tsv"))
FULL = os.environ.get("QE_EDGE_MLQE_PE")


def texts(path: Path) -> list[tuple[str, str]]:
    rows = [line.split("\t") for line in path.read_bytes().decode().removesuffix("\n").split("\n")]
    source, translation = rows[0].index("original"), rows[0].index("translation")
    return [(cells[source], cells[translation]) for cells in rows[1:]]


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_the_pairs_of_mlqe_pe_are_detected_from_eight_rows(path: Path) -> None:
    found = detect_pair(texts(path)[:8], path.name)
    assert f"{found.source}-{found.target}" == path.stem
    assert found.rows == 8


@pytest.mark.skipif(FULL is None, reason="set QE_EDGE_MLQE_PE to a folder with the files of MLQE-PE")
@pytest.mark.parametrize("rows", [10, 1000])
def test_the_pairs_of_all_dev_files_are_detected(rows: int) -> None:
    assert FULL is not None
    paths = sorted(Path(FULL).glob("dev.*.tsv"))
    assert len(paths) == 7
    for path in paths:
        found = detect_pair(texts(path)[:rows], path.name)
        assert found.source + found.target == path.name.split(".")[1]
        assert found.agreement > 0.75


def test_agreement_is_the_lower_share_of_the_two_sides() -> None:
    estonian = "Tere hommikust, kuidas teil täna läheb?"
    english = "Good morning, how are you doing today?"
    german = "Guten Morgen, wie geht es Ihnen heute?"
    rows = [(estonian, english)] * 3 + [(estonian, german)]
    assert detect_pair(rows, "f") == Detected("et", "en", 4, 0.75)


def test_rows_with_an_empty_side_do_not_vote() -> None:
    rows = [("Guten Morgen, wie geht es Ihnen heute?", "Good morning, how are you doing today?"), ("Bonjour", " ")]
    assert detect_pair(rows, "f").rows == 1


def test_rows_that_disagree_stop_the_run() -> None:
    english = "Good morning, how are you doing today?"
    rows = [("Tere hommikust, kuidas teil täna läheb?", english), ("Guten Morgen, wie geht es Ihnen heute?", english)]
    with pytest.raises(InputError, match=r"f: language of the source is unclear from 2 rows \(.*\); .*--lp et-en"):
        detect_pair(rows, "f")


def test_the_same_language_on_both_sides_stops_the_run() -> None:
    rows = [("Good morning, how are you doing today?", "Good evening, how did you do yesterday?")]
    with pytest.raises(InputError, match=r"source and translation both look like English; .*--lp"):
        detect_pair(rows, "f")


def test_no_text_at_all_stops_the_run() -> None:
    with pytest.raises(InputError, match=r"no text to detect the languages from; .*--lp"):
        detect_pair([("", "a"), ("b", "")], "f")


def test_of_a_long_text_the_beginning_votes() -> None:
    rows = [("Guten Morgen, wie geht es Ihnen heute? " * 60, "Good morning, how are you doing today? " * 60)]
    longer = [
        (source + "Tere hommikust! " * 100_000, target + "Bonjour à tous ! " * 100_000) for source, target in rows
    ]
    assert detect_pair(longer, "f") == detect_pair(rows, "f") == Detected("de", "en", 1, 1.0)
