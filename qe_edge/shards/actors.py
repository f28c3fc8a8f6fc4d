"""Shards on several processes, of this machine or of many, with Ray: a pool of actors, each with one scorer.

A shard is handed to an actor whole, and the actor writes its output: rows never pass through Ray, and what is written
is what one process would write. An actor that dies is replaced, and its shard is handed out again; its journal says
which rows are done.
"""

from __future__ import annotations

import logging
import os
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qe_edge.bundle import open_bundle
from qe_edge.commands.extras import require
from qe_edge.commands.loading import Loading, load_scorer
from qe_edge.errors import BundleError, DeviceError, InputError, QeEdgeError, UsageError
from qe_edge.scoring.machine import physical_cores
from qe_edge.shards.folder import Shard
from qe_edge.shards.shard import Options, Outcome, score_shard

if TYPE_CHECKING:
    from qe_edge import Scorer

ATTEMPTS = 3
"""deaths of actors over one shard after which it is given up: it may be what kills them"""
OBJECT_STORE_BYTES = 80 << 20
"""about the least that Ray takes; only names and counts pass through it"""
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
    """Scores shards, one at a time; the class of the actors."""

    def __init__(self, work: Work) -> None:
        # before the tokenizer starts its own threads, one for each core if it is not told
        os.environ["RAYON_NUM_THREADS"] = str(work.threads)
        self._work = work
        self._scorer: Scorer | None = None

    def score(self, shard: Shard) -> Outcome:
        """As `score_shard`; what keeps the scorer from being loaded is in the outcome, too."""
        try:
            scorer = self._scorer = self._scorer or self._load()
        except QeEdgeError as error:
            return Outcome(shard.name, error=error)
        return score_shard(shard, scorer, scorer.bundle.prompt, self._work.options)

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
    require("ray", "ray")
    with _started(address):
        yield from _outcomes(shards, work, min(_room(work, workers), len(shards)))


def _outcomes(shards: Sequence[Shard], work: Work, workers: int) -> Iterator[Outcome]:
    import ray
    from ray.exceptions import RayActorError

    needs: dict[str, Any] = {"num_gpus": 1} if work.on_gpu else {"num_cpus": work.threads}
    pool = ray.remote(ShardScorer).options(**needs)
    idle: list[Any] = [pool.remote(work) for _ in range(workers)]
    waiting, deaths = deque(shards), Counter[str]()
    running: dict[Any, tuple[Any, Shard]] = {}
    while waiting or running:
        while waiting and idle:
            actor, shard = idle.pop(), waiting.popleft()
            running[actor.score.remote(shard)] = actor, shard
        (answer,), _ = ray.wait(list(running))
        actor, shard = running.pop(answer)
        try:
            yield ray.get(answer)
        except RayActorError:
            actor = pool.remote(work)
            deaths[shard.name] += 1
            if deaths[shard.name] < ATTEMPTS:
                waiting.appendleft(shard)
            else:
                yield Outcome(shard.name, error=InputError(_given_up(shard)))
        idle.append(actor)


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
        reason = " ".join(str(error).split())[:200].rstrip(".")
        place = "on this machine" if address is None else f"--address {address}"
        raise DeviceError(f"Ray {place}: cannot be used ({reason}); check that it runs, and its log") from error
    try:
        yield
    finally:
        ray.shutdown()


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
