"""An output file appears complete or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from qe_edge.errors import InputError, OutputError
from qe_edge.rows import Status
from qe_edge.table.journal import Identity, Progress
from qe_edge.table.output import CHECKPOINT_ROWS, belongs_to, open_output


def test_a_file_appears_only_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "out.tsv"
    with open_output(str(target), []) as output:
        output.write("a\tb\n")
        output.flush()
        assert not target.exists()
    assert target.read_bytes() == b"a\tb\n"
    assert [path.name for path in tmp_path.iterdir()] == ["out.tsv"]


def test_after_an_error_the_old_file_is_as_it_was_and_nothing_new_is_left(tmp_path: Path) -> None:
    target = tmp_path / "out.tsv"
    target.write_text("old")

    def write_and_fail() -> None:
        with open_output(str(target), []) as output:
            output.write("new")
            raise KeyError("half way")

    with pytest.raises(KeyError, match="half way"):
        write_and_fail()
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out.tsv"]


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
@pytest.mark.parametrize("resumable", [False, True])
def test_what_replaces_a_file_is_open_to_no_one_else(tmp_path: Path, resumable: bool) -> None:
    target = tmp_path / "out.tsv"
    target.touch(0o600)
    with open_output(str(target), [], resumable=resumable) as output:
        output.write("new")
        (partial,) = tmp_path.glob(".*part")
        assert partial.stat().st_mode & 0o777 == 0o600
    assert target.read_text() == "new"
    assert target.stat().st_mode & 0o777 == 0o600


def test_undecodable_bytes_are_written_as_they_were(tmp_path: Path) -> None:
    target = tmp_path / "out.tsv"
    with open_output(str(target), []) as output:
        output.write(b"Caf\xe9\xff".decode("utf-8", "surrogateescape"))
    assert target.read_bytes() == b"Caf\xe9\xff"


@pytest.mark.parametrize("name", ["input.tsv", "link.tsv", "folder/../input.tsv"])
def test_the_input_is_not_overwritten(tmp_path: Path, name: str) -> None:
    source = tmp_path / "input.tsv"
    source.write_text("src\tmt\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link.tsv").symlink_to(source)
    with pytest.raises(OutputError, match="is the input itself"), open_output(str(tmp_path / name), [str(source)]):
        pass
    assert source.read_text() == "src\tmt\n"


@pytest.mark.parametrize("end", ["part", "journal", "lock"])
def test_what_is_kept_for_an_output_is_not_overwritten_as_its_input(tmp_path: Path, end: str) -> None:
    source = tmp_path / f".out.tsv.{end}"
    source.write_text("src\tmt\n")
    refused = pytest.raises(OutputError, match="would overwrite")
    with refused, open_output(str(tmp_path / "out.tsv"), [str(source)], resumable=True):
        pass
    assert source.read_text() == "src\tmt\n"


def test_an_input_is_not_added_to_through_standard_output(tmp_path: Path) -> None:
    source = tmp_path / "input.tsv"
    source.write_text("src\tmt\n")
    program = f"from qe_edge.table.output import open_output\nwith open_output(None, [{str(source)!r}]): pass"
    with source.open("a") as appended:
        done = subprocess.run([sys.executable, "-c", program], stdout=appended, stderr=subprocess.PIPE, text=True)
    assert "OutputError: stdout: is the input itself; give -o FILE with another name" in done.stderr
    assert source.read_text() == "src\tmt\n"


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files have no names on this system")
@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "/dev/stderr", "/dev/fd/2"])
def test_what_the_shell_has_opened_is_added_to_and_not_replaced(tmp_path: Path, name: str) -> None:
    target = tmp_path / "all.tsv"
    target.write_text("before\n")
    program = f"""
from qe_edge.table.output import open_output
for line in ("first", "second"):
    with open_output({name!r}, [], resumable=True) as output:
        output.write(line + "\\n")
"""
    with target.open("a") as appended:
        subprocess.run([sys.executable, "-c", program], stdout=appended, stderr=appended, check=True)
        appended.write("after\n")
    assert target.read_text() == "before\nfirst\nsecond\nafter\n"
    assert [path.name for path in tmp_path.iterdir()] == ["all.tsv"]


def test_a_link_that_leads_back_to_itself_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "loop"
    target.symlink_to(target)
    with pytest.raises(OutputError, match="leads back to itself"), open_output(str(target), []):
        pass
    assert target.is_symlink()


def test_a_name_that_is_too_long_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"), open_output(str(tmp_path / ("x" * 300)), []):
        pass


def test_a_folder_that_is_gone_is_no_place_for_a_relative_name(tmp_path: Path) -> None:
    program = "import os, sys\nfrom qe_edge.table.output import open_output\nos.rmdir(os.getcwd())\n"
    program += "with open_output('out.tsv', []): pass"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    assert "OutputError: out.tsv: cannot be written (No such file or directory)" in done.stderr


def test_a_link_to_a_file_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "link.tsv").symlink_to(tmp_path / "real.tsv")
    with open_output(str(tmp_path / "link.tsv"), []) as output:
        output.write("a\n")
    assert (tmp_path / "link.tsv").is_symlink()
    assert (tmp_path / "real.tsv").read_text() == "a\n"


def test_what_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path, message in [
        (tmp_path, "is a directory"),
        (tmp_path / "missing" / "out.tsv", "cannot be written"),
        (tmp_path / "file" / "out.tsv", "cannot be written"),
        (f"{tmp_path}/new/", "is a name for a directory; give the name of a file"),
    ]:
        with pytest.raises(OutputError, match=message), open_output(str(path), []):
            pass


def test_a_pipe_is_written_directly(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    with open_output(f"/dev/fd/{writing}", []) as output:
        output.write("a\n")
        output.flush()
        assert os.read(reading, 10) == b"a\n"
    os.close(reading)
    os.close(writing)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_disk_is_an_output_error_and_a_device_is_not_replaced() -> None:
    with pytest.raises(OutputError, match="No space left"), open_output("/dev/full", []) as output:
        output.write("a\n")
    assert Path("/dev/full").is_char_device()


RUN = Identity([], "scorer", {})
ONE = Counter({Status.OK: 1})


def interrupted(target: Path, identity: Identity = RUN) -> None:
    """A run that writes a header and two rows, notes the first, and dies."""
    with open_output(str(target), [], resumable=True) as output:
        output.resume(identity)
        output.write("header\n")
        output.write("1\n")
        output.checkpoint(1, ONE, "hash")
        output.write("2\n")
        raise KeyboardInterrupt


def test_an_interrupted_run_is_continued_after_its_last_checkpoint(tmp_path: Path) -> None:
    target = tmp_path / "out.tsv"
    target.write_text("old")
    with pytest.raises(KeyboardInterrupt):
        interrupted(target)
    assert target.read_text() == "old"
    assert (tmp_path / ".out.tsv.part").read_text() == "header\n1\n2\n"

    with open_output(str(target), [], resumable=True) as output:
        output.resume(RUN)
        assert output.progress == Progress(1, 9, "hash", ONE)
        output.write("two\n")
    assert target.read_text() == "header\n1\ntwo\n"
    assert [path.name for path in tmp_path.iterdir()] == ["out.tsv"]


def test_restart_begins_anew(tmp_path: Path) -> None:
    target = tmp_path / "out.tsv"
    with pytest.raises(KeyboardInterrupt):
        interrupted(target)
    with open_output(str(target), [], resumable=True, restart=True) as output:
        output.resume(Identity([], "another scorer", {}))
        assert output.progress == Progress()
        output.write("new\n")
    assert target.read_text() == "new\n"
    assert [path.name for path in tmp_path.iterdir()] == ["out.tsv"]


def test_a_refused_run_leaves_the_interrupted_one_as_it_was(tmp_path: Path) -> None:
    target = tmp_path / "out.tsv"
    with pytest.raises(KeyboardInterrupt):
        interrupted(target)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(InputError, match="use --restart"):
        interrupted(target, Identity([], "other", {}))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_run_that_has_noted_nothing_leaves_nothing(tmp_path: Path) -> None:
    def write_and_stop() -> None:
        with open_output(str(tmp_path / "out.tsv"), [], resumable=True) as output:
            output.resume(RUN)
            output.write("header\n")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_and_stop()
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_was_killed_when_it_had_its_name_is_no_obstacle(tmp_path: Path) -> None:
    target = tmp_path / "out.tsv"
    with pytest.raises(KeyboardInterrupt):
        interrupted(target)
    (tmp_path / ".out.tsv.part").rename(target)  # the journal is what is left
    with open_output(str(target), [], resumable=True) as output:
        output.resume(RUN)
        assert output.progress == Progress()
        output.write("again\n")
    assert target.read_text() == "again\n"
    assert [path.name for path in tmp_path.iterdir()] == ["out.tsv"]


def test_a_partial_output_that_is_shorter_than_its_journal_says_is_written_anew(tmp_path: Path) -> None:
    target = tmp_path / "out.tsv"
    with pytest.raises(KeyboardInterrupt):
        interrupted(target)
    (tmp_path / ".out.tsv.part").write_text("head")
    with open_output(str(target), [], resumable=True) as output:
        output.resume(RUN)
        assert output.progress == Progress()
        output.write("anew\n")
        assert not (tmp_path / ".out.tsv.journal").exists()
    assert target.read_text() == "anew\n"


def test_what_a_crash_left_of_a_journal_goes_with_it(tmp_path: Path) -> None:
    (tmp_path / ".out.tsv.journal.new").write_text("half")
    with open_output(str(tmp_path / "out.tsv"), [], resumable=True) as output:
        output.resume(RUN)
    assert [path.name for path in tmp_path.iterdir()] == ["out.tsv"]


def test_two_runs_on_one_output_refuse_each_other(tmp_path: Path) -> None:
    target = tmp_path / "out.tsv"
    with open_output(str(target), [], resumable=True) as output:
        output.resume(RUN)
        with pytest.raises(OutputError, match="another run is writing it"):
            interrupted(target)
        output.write("first\n")
    assert target.read_text() == "first\n"


@pytest.mark.parametrize(("first", "second"), [(False, False), (True, False), (False, True)])
def test_two_runs_refuse_each_other_also_where_one_reads_a_pipe(tmp_path: Path, first: bool, second: bool) -> None:
    target = tmp_path / "out.tsv"
    with open_output(str(target), [], resumable=first) as output:
        output.write("first")
        with pytest.raises(OutputError, match="another run"), open_output(str(target), [], resumable=second):
            pass
    assert target.read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["out.tsv"]


def test_checkpoints_are_due_where_a_scorers_windows_end(tmp_path: Path) -> None:
    from qe_edge.scoring.scorer import WINDOW

    assert CHECKPOINT_ROWS % WINDOW == 0
    with open_output(str(tmp_path / "out.tsv"), [], resumable=True) as output:
        assert not output.due(CHECKPOINT_ROWS)  # before it is known which run this is
        output.resume(RUN)
        assert [rows for rows in range(1, 2 * CHECKPOINT_ROWS + 2) if output.due(rows)] == [
            CHECKPOINT_ROWS,
            2 * CHECKPOINT_ROWS,
        ]


def test_what_is_written_directly_is_never_due(capsys: pytest.CaptureFixture[str]) -> None:
    with open_output(None, [], resumable=True) as output:
        output.resume(RUN)
        assert not output.resumable
        assert not output.due(1024)


def test_to_an_output_belong_itself_and_the_hidden_files_beside_it() -> None:
    names = ["a.tsv", ".a.tsv.part", ".a.tsv.done", ".a.tsv", "b.tsv", "a.tsv.db", ".aa.tsv.part", "lower/a.tsv"]
    assert [name for name in names if belongs_to(Path("out") / name, Path("out/a.tsv"))] == names[:3]
