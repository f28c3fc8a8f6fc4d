"""`qe-edge score FOLDER -o FOLDER`: all tables of a folder, in this process or on Ray."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from textwrap import indent

import typer

from qe_edge.bundle import Bundle, open_bundle
from qe_edge.commands.extras import require
from qe_edge.commands.loading import Loading
from qe_edge.errors import EXIT_INVALID_ROWS, InputError, OutputError, one_line
from qe_edge.rows import Status
from qe_edge.shards.finished import check_all, forget_all
from qe_edge.shards.folder import Shard, left_out
from qe_edge.shards.shard import Options, Outcome, score_shard
from qe_edge.table.columns import listed
from qe_edge.table.report import counts_said
from qe_edge.table.stream import RowScorer


class Engine(StrEnum):
    """What scores the tables of a folder."""

    PROCESS = "process"
    """this process, one table after the other"""
    RAY = "ray"
    """processes of this machine or of a cluster, several tables at a time"""


@dataclass(frozen=True)
class FolderRun:
    """One run over a folder. A table that cannot be used is named, and the others are scored all the same."""

    folder: Path
    target: Path
    shards: Sequence[Shard]
    model: Path
    options: Options
    restart: bool
    quiet: bool

    def in_process(self, load: Callable[[Bundle], RowScorer]) -> None:
        """Score the tables one after the other; see `_finish` for what is raised.

        load: the scorer of a bundle.
        """
        bundle = open_bundle(self.model)
        scorer = load(bundle)
        try:
            self._prepare(scorer.signature)
            self._finish(score_shard(shard, scorer, bundle.prompt, self.options) for shard in self.shards)
        finally:
            scorer.close()

    def on_ray(self, loading: Loading, workers: int | None, address: str | None) -> None:
        """Score several tables at a time on Ray; see `_finish` for what is raised.

        loading: auto is cpu, and one thread for each worker if not given; the rest as `qe_edge.shards.actors`.
        """
        require("cpu", "onnxruntime")
        from qe_edge.scoring.kernels.rewrite import runs_on
        from qe_edge.scoring.scorer import signature
        from qe_edge.shards.actors import Work, score_on_ray

        bundle = open_bundle(self.model)
        here = replace(
            loading,
            device="cuda" if loading.device == "cuda" else "cpu",
            threads=loading.threads or 1,
            cache=None if loading.cache is None else loading.cache.resolve(),
        )
        signed = signature(bundle, here.device if here.device != "cpu" else runs_on(bundle.model, bundle.spec.head_dim))
        self._prepare(signed)
        work = Work(self.model.resolve(), signed, self.options, here)
        self._finish(score_on_ray(self.shards, work, workers, address))

    def _prepare(self, signature: str) -> None:
        """Make the folder of the outputs, and refuse to mix another run's with this one's."""
        try:
            self.target.mkdir(exist_ok=True)
            if self.restart:
                forget_all(self.shards)
            check_all(self.shards, signature, asdict(self.options))
        except OSError as error:
            place = error.filename or self.target
            raise OutputError(f"{place}: cannot be written ({error.strerror}); check the folder") from None
        if not self.quiet:
            _say(signature)
            others = left_out(self.folder)
            if others:
                _say(f"left out, by the ends of their names: {listed(others, ', ')}")

    def _finish(self, outcomes: Iterator[Outcome]) -> None:
        """Tell each outcome and the sum of them.

        Raises InputError after the last one if tables could not be used, and at once any error that is not of one table
        alone. Exits with EXIT_INVALID_ROWS when rows are invalid.
        """
        failed: list[InputError] = []
        rows = Counter[Status]()
        done = 0
        try:
            for outcome in outcomes:
                done += outcome.error is None
                rows.update(outcome.tally)
                self._tell(outcome)
                if isinstance(outcome.error, InputError):
                    failed.append(outcome.error)
                elif outcome.error is not None:
                    raise outcome.error
        except BaseException:
            with suppress(OSError):  # after a hang-up there may be no terminal to tell
                _say(f"{done} of {len(self.shards)} tables are finished; the same command goes on after them")
            raise
        if not self.quiet:
            _say(f"{done} of {len(self.shards)} tables, {rows.total()} rows: {counts_said(rows)}")
        if failed:
            raise InputError(f"{len(failed)} of {len(self.shards)} tables could not be scored; the first: {failed[0]}")
        if rows[Status.INVALID]:
            raise typer.Exit(EXIT_INVALID_ROWS)

    def _tell(self, outcome: Outcome) -> None:
        """One line a table, and below it what its report says."""
        total = sum(outcome.tally.values())
        if outcome.error is not None:
            _say(f"{outcome.shard}: not finished: {outcome.error}")
        elif not self.quiet and outcome.before:
            _say(f"{outcome.shard}: {total} rows, finished before")
        elif not self.quiet or outcome.said:
            _say(f"{outcome.shard}: {total} rows in {outcome.seconds:.1f} s: {counts_said(outcome.tally)}")
        if outcome.said:
            print(indent(outcome.said.rstrip("\n"), "  "), file=sys.stderr, flush=True)  # lines of a `Report`


def _say(text: str) -> None:
    print(one_line(text), file=sys.stderr, flush=True)
