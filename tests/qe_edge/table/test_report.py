"""What is said on standard error: little, in a fixed order, and progress for people only."""

from __future__ import annotations

import io

import pytest

from qe_edge.rows import Status
from qe_edge.table import report as report_module
from qe_edge.table.report import Report


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_signature_comes_first_and_the_counts_last() -> None:
    stream = io.StringIO()
    report = Report(stream)
    report.start("signature", ["how it is read"], ["what was assumed"])
    report.fault("f.tsv:3", "broken")
    report.finish({Status.OK: 8, Status.INVALID: 1, Status.TRUNCATED: 2})
    *lines, last = stream.getvalue().splitlines()
    assert lines == ["signature", "how it is read", "what was assumed", "f.tsv:3: broken"]
    assert last.startswith("11 rows in ")
    assert last.endswith(" rows/s): 8 ok, 2 truncated, 1 invalid")


def test_quiet_leaves_faults_and_assumptions() -> None:
    stream = io.StringIO()
    report = Report(stream, quiet=True)
    report.start("signature", ["how it is read"], ["what was assumed"])
    report.fault("f.tsv:3", "broken")
    report.finish({Status.OK: 8})
    assert stream.getvalue().splitlines() == ["what was assumed", "f.tsv:3: broken"]


def test_what_a_terminal_would_obey_is_escaped() -> None:
    stream = io.StringIO()
    Report(stream, quiet=True).fault("new\nline\x1b[31m.tsv:3", "a fault")
    assert stream.getvalue() == "new\\nline\\x1b[31m.tsv:3: a fault\n"


def test_after_twenty_faults_the_others_are_counted() -> None:
    stream = io.StringIO()
    report = Report(stream, quiet=True)
    for line in range(25):
        report.fault(f"f.tsv:{line}", "broken")
    report.finish({})
    assert stream.getvalue().splitlines() == [
        *(f"f.tsv:{line}: broken" for line in range(20)),
        "5 more rows could not be read or scored",
    ]


def test_progress_is_shown_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_module, "PROGRESS_SECONDS", 0.0)
    monkeypatch.setenv("TERM", "xterm")
    for stream, shown in [(Terminal(), True), (io.StringIO(), False)]:
        Report(stream).progress(3)
        assert ("3 rows, " in stream.getvalue()) is shown
    stream = Terminal()
    Report(stream, quiet=True).progress(3)
    assert stream.getvalue() == ""
    monkeypatch.setenv("TERM", "dumb")
    Report(stream).progress(3)
    assert stream.getvalue() == ""
