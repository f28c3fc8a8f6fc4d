"""The installed command, the real scorer and a real graph: every status, and the same rows in each way of asking."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from qe_edge import __version__
from qe_edge.bundle import open_bundle


def run(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "-m", "qe_edge", "score", *arguments], capture_output=True, check=False)


def test_every_status_comes_out_with_its_row(tmp_path: Path, counting_bundle: Path) -> None:
    rows = [
        (b"et-en\tTere hommikust\tGood morning", b"9.0000\tok"),  # 3 + 2 + 2 words and 2 marks
        (b"et-en\t \tGood morning", b"\tempty_source"),
        (b"et-en\tTere\t", b"\tempty_translation"),
        (b"et-en\t" + b"a " * 20 + b"\tb", b"16.0000\ttruncated"),  # the token limit of this bundle
        (b"et-en\tTere\ttere", b"7.0000\tcopied_source"),
        (b"ro-en\tBun\tGood", b"7.0000\tunsupported_language"),
        (b"xx-en\tTere\tHello", b"\tinvalid"),
        (b"et-en\tCaf\xe9\tHello", b"\tinvalid"),
        (b"et-en\tTere", b"\t\tinvalid"),
        (b"est-eng\tTere hommikust\tGood morning", b"9.0000\tok"),
    ]
    (tmp_path / "in.tsv").write_bytes(b"".join(row + b"\n" for row in [b"lp\tsrc\tmt", *(row for row, _ in rows)]))
    arguments = ["--model", str(counting_bundle), "--device", "cpu", "--threads", "1"]

    done = run(f"{tmp_path}/in.tsv", *arguments)

    assert done.returncode == 4
    assert done.stdout.split(b"\n") == [
        b"lp\tsrc\tmt\tqe_score\tqe_status",
        *(row + b"\t" + cells for row, cells in rows),
        b"",
    ]
    messages = done.stderr.decode().splitlines()
    digest = open_bundle(counting_bundle).digest
    assert messages[0] == f"qe-edge {__version__} | bundle tiny@{digest} | TL-11 | w8a8 | cpu"
    assert [line.partition(": ")[0] for line in messages if line.startswith(str(tmp_path))] == [
        f"{tmp_path}/in.tsv:{line}" for line in (8, 9, 10)
    ]
    assert messages[-1].endswith(
        ": 2 ok, 1 copied_source, 1 unsupported_language, 1 truncated, 1 empty_translation, 1 empty_source, 3 invalid"
    )

    run(f"{tmp_path}/in.tsv", *arguments, "-o", f"{tmp_path}/out.tsv")
    assert (tmp_path / "out.tsv").read_bytes() == done.stdout


def test_a_table_and_two_aligned_files_give_the_same_scores(tmp_path: Path, counting_bundle: Path) -> None:
    sources = ["Tere", "Tere hommikust", ""]
    translations = ["Hello", "Good morning to you", "x"]
    (tmp_path / "src.txt").write_text("\n".join(sources) + "\n")
    (tmp_path / "mt.txt").write_text("\n".join(translations) + "\n")
    table = "".join(f"{source}\t{translation}\n" for source, translation in zip(sources, translations, strict=True))
    (tmp_path / "table.tsv").write_text(table)
    arguments = ["--lp", "et-en", "--model", str(counting_bundle), "--quiet", "--device", "cpu"]

    aligned = run("-s", f"{tmp_path}/src.txt", "-t", f"{tmp_path}/mt.txt", *arguments)
    by_field = run(f"{tmp_path}/table.tsv", "--fields", "1,2", *arguments)

    assert aligned.stderr == by_field.stderr == b""
    assert aligned.stdout == b"7.0000\n11.0000\n\n"
    assert [line.split(b"\t")[2] for line in by_field.stdout.splitlines()] == aligned.stdout.splitlines()


def test_one_text_is_scored_with_every_status_it_can_have(tmp_path: Path, text_bundle: Path) -> None:
    rows = [
        (b'1\t"Never again!" she said', b"5.0000\tok"),  # 4 words and a mark
        (b"2\t ", b"\tempty_text"),
        (b"3\t" + b"so " * 20, b"16.0000\ttruncated"),  # the token limit of this bundle
        (b"4\tCaf\xe9", b"\tinvalid"),
        (b"5\t:-)", b"2.0000\tok"),
        (b'1\t"Never again!" she said', b"5.0000\tok"),
    ]
    (tmp_path / "in.tsv").write_bytes(b"".join(row + b"\n" for row in [b"id\ttext", *(row for row, _ in rows)]))
    (tmp_path / "lines.txt").write_bytes(b"one\none two\n")
    arguments = ["--model", str(text_bundle), "--device", "cpu", "--threads", "1"]

    done = run(f"{tmp_path}/in.tsv", *arguments)
    by_field = run(f"{tmp_path}/lines.txt", "--fields", "1", *arguments)

    assert done.returncode == 4
    assert done.stdout.split(b"\n") == [b"id\ttext\tqe_score\tqe_status", *(b"\t".join(row) for row in rows), b""]
    messages = done.stderr.decode().splitlines()
    assert messages[1:3] == [
        "read as unquoted TSV (decided from its start; override with --quoting)",
        "2 columns: text 'text'",
    ]
    assert messages[-1].endswith(": 3 ok, 1 truncated, 1 empty_text, 1 invalid")
    assert by_field.stdout == b"one\t2.0000\tok\none two\t3.0000\tok\n"
