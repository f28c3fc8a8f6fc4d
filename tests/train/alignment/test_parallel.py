"""Parallel text: what is read, what is left out, and how every fault of the files is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from qe_edge.errors import InputError
from qe_edge_train.alignment.parallel import load_parallel
from qe_edge_train.recipe import ParallelText

TEXTS = (ParallelText("a.txt", "eng"), ParallelText("b.txt", "zho-CN"), ParallelText("c.txt", "et"))


def write(folder: Path, **contents: str | bytes) -> None:
    for name, content in contents.items():
        data = content if isinstance(content, bytes) else content.encode()
        (folder / f"{name}.txt").write_bytes(data)


def test_lines_of_all_languages_are_aligned_and_languages_normalised(tmp_path: Path) -> None:
    write(tmp_path, a="one\ntwo\n", b="一\n二\n", c="üks\nkaks\n")

    parallel = load_parallel(TEXTS, tmp_path)

    assert parallel.languages == ("en", "zh", "et")
    assert parallel.sentences == {"en": ("one", "two"), "zh": ("一", "二"), "et": ("üks", "kaks")}
    assert (len(parallel), parallel.numbers, parallel.empty) == (2, (1, 2), 0)


def test_only_line_ends_are_stripped_and_other_separators_stay_inside(tmp_path: Path) -> None:
    write(tmp_path, a="  one\t\r\n\u2028two\x85more\n", b="\ufeffx\ny\n", c="x\ny")

    parallel = load_parallel(TEXTS, tmp_path)

    assert parallel.sentences["en"] == ("  one\t", "\u2028two\x85more")
    assert parallel.sentences["zh"] == ("x", "y")


def test_a_line_empty_in_one_language_is_left_out_of_all_and_counted(tmp_path: Path) -> None:
    write(tmp_path, a="1\n2\n3\n4\n", b="1\n\n3\n4\n", c="1\n2\n3\n \n")

    parallel = load_parallel(TEXTS, tmp_path)

    assert parallel.sentences["en"] == ("1", "3")
    assert (parallel.numbers, parallel.empty) == ((1, 3), 2)


def test_a_range_counts_the_lines_of_the_files(tmp_path: Path) -> None:
    write(tmp_path, a="1\n2\n3\n4\n5\n", b="1\n2\n\n4\n5\n", c="1\n2\n3\n4\n5\n")

    parallel = load_parallel(TEXTS, tmp_path, first_line=2, lines=3)

    assert (parallel.numbers, parallel.empty) == ((2, 4), 1)
    assert parallel.part(1, 2).sentences == {"en": ("4",), "zh": ("4",), "et": ("4",)}
    assert parallel.part(1, 2).numbers == (4,)


@pytest.mark.parametrize(
    ("c", "expected"),
    [
        ("1\n2\n3\n", "c.txt: 3 lines, but {folder}/a.txt has 2; the n-th lines of parallel files must say the same"),
        ("", "c.txt: is empty"),
        ("\n\n", "c.txt: is empty"),
        (b"1\n\xff\n", "c.txt:2: not UTF-8: invalid start byte; convert the file to UTF-8"),
    ],
)
def test_faulty_files_are_named(tmp_path: Path, c: str | bytes, expected: str) -> None:
    write(tmp_path, a="1\n2\n", b="1\n2\n", c=c)

    with pytest.raises(InputError) as caught:
        load_parallel(TEXTS, tmp_path)

    assert str(caught.value) == f"{tmp_path}/{expected.format(folder=tmp_path)}"


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.txt: no such file; check the path and the data folder"):
        load_parallel(TEXTS, tmp_path)
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(InputError, match=r"a\.txt: cannot be read: Is a directory"):
        load_parallel(TEXTS, tmp_path)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (TEXTS[:1], "[[alignment.texts]]: 1 of them; at least two languages are needed"),
        ((*TEXTS, ParallelText("d.txt", "Estonian")), "d.txt: language 'et' is already that of c.txt; give each once"),
        ((*TEXTS, ParallelText("c.txt", "de")), "c.txt: is given for two languages; give each language its own file"),
        ((*TEXTS, ParallelText("d.txt", "qq")), "[[alignment.texts]] d.txt: unknown language 'qq'"),
    ],
)
def test_languages_that_cannot_be_used_are_named(
    tmp_path: Path, texts: tuple[ParallelText, ...], expected: str
) -> None:
    write(tmp_path, a="1\n", b="1\n", c="1\n")

    with pytest.raises(InputError) as caught:
        load_parallel(texts, tmp_path)

    assert str(caught.value).startswith(expected)


@pytest.mark.parametrize(
    ("first_line", "lines", "expected"),
    [
        (4, 0, "a.txt: has 3 lines, not lines from 4; lower first_line or lines"),
        (2, 3, "a.txt: has 3 lines, not lines 2 to 4; lower first_line or lines"),
        (2, 1, "a.txt:2: every line up to 2 is empty in at least one language"),
    ],
)
def test_ranges_without_lines_are_refused(tmp_path: Path, first_line: int, lines: int, expected: str) -> None:
    write(tmp_path, a="1\n\n3\n", b="1\n2\n3\n", c="1\n2\n3\n")

    with pytest.raises(InputError) as caught:
        load_parallel(TEXTS, tmp_path, first_line, lines)

    assert str(caught.value) == f"{tmp_path}/{expected}"
