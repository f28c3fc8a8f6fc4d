"""Shards on several processes, of this machine or of many, with Ray Data: names of shards, mapped by actors with a
scorer each.

A shard is handed to an actor whole, and the actor writes its output: rows never pass through Ray, and what is written
is what one process would write. Ray Data replaces an actor that dies and hands its shard out again, without end; its
journal says which rows are done, and its attempts, which are counted beside it, when to give it up.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from qe_edge.bundle import open_bundle
from qe_edge.commands.extras import require
from qe_edge.commands.loading import Loading, load_scorer
from qe_edge.errors import BundleError, DeviceError, InputError, QeEdgeError, UsageError
from qe_edge.scoring.machine import physical_cores
from qe_edge.shards.attempts import Attempts
from qe_edge.shards.folder import Shard
from qe_edge.shards.shard import Options, Outcome, score_shard, told

if TYPE_CHECKING:
    from qe_edge import Scorer

ATTEMPTS = 3
"""deaths of actors over one shard after which it is given up: it may be what kills them"""
OBJECT_STORE_BYTES = 80 << 20
"""about the least that Ray takes; only names and counts pass through it"""
BLOCK_BYTES = 1 << 20
"""of outcomes: Ray Data keeps room for some blocks of each actor, 128 MB each if it is not told"""
STDERR = 2
"""file descriptor of standard error"""
SHARD, OUTCOME = "shard", "outcome"
"""Columns of the data sets."""
STARTS = 3
"""Ray gives its processes half a minute to start, which they may miss on a busy machine."""
QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}


@dataclass(frozen=True)
class Work:
    """What every actor is told."""

    bundle: Path
    """absolute; the same on every machine"""
    signature: str
    """of the scorer that each of them must have"""
    options: Options
    loading: Loading
    """of that scorer, on cpu or cuda, with a number of threads"""

    @property
    def threads(self) -> int:
        return self.loading.threads or 1

    @property
    def on_gpu(self) -> bool:
        return self.loading.device == "cuda"


class ShardScorer:
    """Scores shards, one at a time; what the actors of Ray Data call."""

    def __init__(self, work: Work, run: str) -> None:
        # before the tokenizer starts its own threads, one for each core if it is not told
        os.environ["RAYON_NUM_THREADS"] = str(work.threads)
        self._work = work
        self._run = run
        self._scorer: Scorer | None = None

    def __call__(self, row: dict[str, Shard]) -> dict[str, Outcome]:
        """A row of Ray Data with a shard to one with its outcome."""
        return {OUTCOME: self.score(row[SHARD])}

    def score(self, shard: Shard) -> Outcome:
        """As `score_shard`; what keeps the scorer from being loaded is in the outcome, too, and so are its deaths.

        Nothing that can be foreseen is raised: Ray Data would end the run.
        """
        attempts = Attempts(shard, self._run)
        try:
            if attempts.begin() > ATTEMPTS:
                raise InputError(_given_up(shard))
            # after the attempt is noted: the bundle may be what is too large for the memory
            scorer = self._scorer = self._scorer or self._load()
            return score_shard(shard, scorer, scorer.bundle.prompt, self._work.options)
        except (QeEdgeError, MemoryError, OSError) as error:
            return Outcome(shard.name, error=told(error, shard))
        finally:
            attempts.forget()

    def _load(self) -> Scorer:
        work = self._work
        scorer = load_scorer(open_bundle(work.bundle), work.loading)
        if scorer.signature != work.signature:
            raise BundleError(
                f"{work.bundle}: a worker has {scorer.signature!r}, not {work.signature!r}; "
                "give all machines the same bundle and the same version of qe-edge"
            )
        return scorer


def score_on_ray(shards: Sequence[Shard], work: Work, workers: int | None, address: str | None) -> Iterator[Outcome]:
    """The outcomes of all shards, as they are finished.

    workers: how many actors, None for as many as there is room for; address: of a running cluster, None to start Ray on
    this machine. Raises UsageError for more workers than there is room for, DeviceError when there is no GPU for one or
    Ray cannot be started, MissingExtraError without Ray.
    """
    require("ray", "ray", "pandas", "pyarrow")
    with _only_our_messages(), _started(address):
        yield from _outcomes(shards, work, min(_room(work, workers), len(shards)))


def _outcomes(shards: Sequence[Shard], work: Work, workers: int) -> Iterator[Outcome]:
    import ray.data

    settings = ray.data.DataContext.get_current()
    settings.enable_progress_bars = False
    settings.target_max_block_size = BLOCK_BYTES
    settings.execution_no_progress_timeout_s = -1  # a shard may take hours; after half an hour Ray Data would stop
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    needs: dict[str, Any] = {"num_gpus": 1} if work.on_gpu else {"num_cpus": work.threads}
    scorer: Any = ShardScorer  # the type of `map` knows functions only
    scored = ray.data.from_items([{SHARD: shard} for shard in shards], override_num_blocks=len(shards)).map(
        scorer,
        fn_constructor_args=(work, uuid4().hex),
        # a shard that waits for a busy actor could be with an idle one
        compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=1),
        **needs,
    )
    try:
        # iter_rows would hold each outcome back until the next shard is finished
        for batch in scored.iter_batches(batch_size=None, prefetch_batches=0):
            yield from batch[OUTCOME]
    except Exception as error:  # RayError, and exceptions of Ray Data that are none
        raise DeviceError(f"Ray Data: cannot go on ({_short(error)}); the same command goes on") from error


def _given_up(shard: Shard) -> str:
    return (
        f"{shard.source}: {ATTEMPTS} workers died over it; is there enough memory? Give fewer --workers, and the same "
        "command again"
    )


@contextmanager
def _started(address: str | None) -> Iterator[None]:
    """Ray, started on this machine or connected to; nothing is sent to anybody else."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray

    try:
        if address is None:
            _start_here(STARTS)
        else:
            ray.init(address, **QUIET)
    except Exception as error:  # Ray raises plain Exception, RuntimeError, ConnectionError and others
        place = "on this machine" if address is None else f"--address {address}"
        raise DeviceError(f"Ray {place}: cannot be used ({_short(error)}); check that it runs, and its log") from error
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _only_our_messages() -> Iterator[None]:
    """Standard output and error without what Ray writes there itself, some of it from C++: its logs have it all.

    A page for every worker that dies is nothing that a user should have to read.
    """
    try:
        terminal = os.dup(STDERR)
    except OSError:  # it is closed: nothing is told to anybody
        yield
        return
    with (
        Path(os.devnull).open("w", encoding="utf-8") as nowhere,
        os.fdopen(terminal, "w", buffering=1, encoding="utf-8", errors="backslashreplace") as ours,
        redirect_stdout(nowhere),
        redirect_stderr(ours),
    ):
        os.dup2(nowhere.fileno(), STDERR)
        try:
            yield
        finally:
            os.dup2(terminal, STDERR)


def _short(error: Exception) -> str:
    """What Ray says, in one line: what was raised in a worker, where that follows a traceback, or the beginning."""
    raised = re.search(r"^[\w.]+(Error|Exception): .*", str(error), re.MULTILINE)
    return " ".join((raised[0] if raised else str(error)).split())[:200].rstrip(".")


def _start_here(starts: int) -> None:
    """Start Ray on this machine, again if it was too slow, up to so many times in all."""
    import ray

    cores = physical_cores()
    try:
        ray.init("local", num_cpus=cores, include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES, **QUIET)
    except Exception as error:
        ray.shutdown()
        if starts == 1 or "timed out during startup" not in str(error):
            raise
        _start_here(starts - 1)


def _room(work: Work, workers: int | None) -> int:
    """How many actors there will be, so that no core or GPU has two."""
    import ray

    kind, each = ("GPU", 1) if work.on_gpu else ("CPU", work.threads)
    # an actor lies on one machine
    most: int = sum(int(node["Resources"].get(kind, 0)) // each for node in ray.nodes() if node["Alive"])
    if most == 0 and kind == "GPU":
        raise DeviceError("--device cuda: Ray knows of no GPU; use --device cpu, or a cluster with GPUs")
    if most == 0:
        raise UsageError(f"--threads {each}: no machine of Ray has so many cores; give fewer")
    if workers is not None and workers > most:
        raise UsageError(f"--workers {workers}: there is room for {most} (--threads {each} each); give fewer of them")
    return workers or most
