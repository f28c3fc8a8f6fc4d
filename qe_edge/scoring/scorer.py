"""Rows in, scores out: windows of a stream, deduplicated, tokenised, planned, run by workers and put back in order.

The calling thread reads and tokenises the next window while the workers run the last one.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from reprlib import repr as shortened
from threading import Lock
from typing import Literal, NamedTuple, Self

from tokenizers import Tokenizer

import qe_edge
from qe_edge.bundle import EMBEDDED_BUNDLE, Bundle, open_bundle
from qe_edge.cache import Known, ScoreCache
from qe_edge.errors import BundleError, OutputError, QeEdgeError, UsageError
from qe_edge.rows import HELD_CHARACTERS, Row, Score, Status, checked
from qe_edge.scoring.batching import TOKEN_BUDGET, Unit, plan
from qe_edge.scoring.engine import Engine, Outcome
from qe_edge.scoring.gpu import token_budget
from qe_edge.scoring.graph import KeyValueShape, Past, open_graph
from qe_edge.scoring.machine import physical_cores
from qe_edge.scoring.recent import DIGEST, RecentScores
from qe_edge.scoring.row_languages import language_names, with_codes, without_languages
from qe_edge.scoring.screening import blocking_status, readable, scored_status
from qe_edge.scoring.tuning import Tuning, load_tuning
from qe_edge.tokens import Pair, PromptEncoder

Device = Literal["auto", "cpu", "cuda"]

WINDOW = 512
"""Rows planned at once: the range over which lengths are sorted and sources are shared. Twice as many save a thousandth
of the padding, and take 4 MB."""
AHEAD = 1
"""Windows begun before the results of the oldest are waited for: their batches keep all cores busy meanwhile."""
PREFIXES = 64
"""Language pairs whose prefix is kept; bounds memory, not correctness."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """What becomes of one distinct row."""

    unit: Future[list[Outcome]]
    place: int
    """of its outcome among those of the unit"""
    truncated: bool

    def wait(self) -> Known | str:
        """Once the unit has run: the score and whether the texts had to be shortened, or why there is no score."""
        outcome = self.unit.result()[self.place]
        return outcome if isinstance(outcome, str) else (outcome, self.truncated)


class Job(NamedTuple):
    """A unit with what it is run on."""

    past: Past
    """of the prefix of its language pair"""
    unit: Unit
    bodies: list[list[int]]
    """token ids of all rows of the language pair, after that past"""
    rows: list[int]
    """which rows these are"""
    truncated: list[bool]
    """whether their texts had to be shortened"""


class _Begun(NamedTuple):
    """A window whose rows are being run."""

    rows: Sequence[Row]
    blocked: list[Status | None]
    """why a row cannot be scored, or None"""
    known: dict[bytes, Known]
    """by the key of each row that need not be run"""
    answers: dict[bytes, _Answer]
    """by the key of each other row that can be scored; some are those of the windows before"""


class Scorer:
    """Scores rows with one bundle. Construct it with `Scorer.load`.

    A row's score depends on its texts and its languages alone: not on its neighbours, their order or the batch.
    Several threads may score with one scorer at a time.
    """

    def __init__(self, bundle: Bundle, engine: Engine, encoder: PromptEncoder, cache: ScoreCache | None = None) -> None:
        self.bundle = bundle
        self.engine = engine
        self.encoder = encoder
        self._cache = cache
        self._prompt = encoder.prompt
        self._trained_pairs = frozenset(bundle.spec.language_pairs)
        self._prefixes: OrderedDict[Pair, Past] = OrderedDict()
        self._recent = RecentScores()
        self._one_thread = Lock()  # for these two

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the workers go, without what they have not begun, and close the cache. Nothing is scored afterwards.

        In a forked child both are the parent's, and stay as they are.
        """
        self.engine.close()
        if self._cache is not None and not self.engine.forked:
            self._cache.close()

    @classmethod
    def load(
        cls,
        path: Path | str | None = None,
        *,
        device: Device = "auto",
        threads: int | None = None,
        cache: Path | str | None = None,
        gpu_mem_limit: int | None = None,
    ) -> Scorer:
        """Verify a bundle folder (None: the embedded bundle) and prepare it for scoring. Opens no connection.

        device: "auto" takes a GPU where it can run the bundle; threads: batches run at once on a CPU, None for what the
        bundle is tuned to on this machine, or else one a core; cache: a file that keeps scores for other runs;
        gpu_mem_limit: most bytes that may be taken on a GPU, None for what is free there.
        Raises BundleError for a bundle that is missing or damaged, DeviceError for a device that cannot run it,
        OutputError for a cache that cannot be used, and UsageError for other values than these.
        """
        bundle = open_bundle(EMBEDDED_BUNDLE if path is None else Path(path))
        kept = None if cache is None else Path(cache)
        return cls.of(bundle, device=device, threads=threads, cache=kept, gpu_mem_limit=gpu_mem_limit)

    @classmethod
    def of(
        cls,
        bundle: Bundle,
        *,
        device: Device = "auto",
        threads: int | None = None,
        cache: Path | None = None,
        gpu_mem_limit: int | None = None,
    ) -> Scorer:
        """As `load`, for a bundle that has been verified already."""
        for name, value in (("threads", threads), ("gpu_mem_limit", gpu_mem_limit)):
            if value is not None and (not isinstance(value, int) or value < 1):
                raise UsageError(f"{name}={value!r}: give a whole number from 1, or None")
        spec = bundle.spec
        shape = KeyValueShape(spec.blocks_kept, spec.kv_heads, spec.head_dim)
        graph = open_graph(bundle.model, shape, spec.precision, device, gpu_mem_limit=gpu_mem_limit)
        try:
            tokenizer = Tokenizer.from_file(str(bundle.tokenizer))
            encoder = PromptEncoder(tokenizer, bundle.prompt, spec.bos, spec.token_limit)
        except QeEdgeError:
            raise
        except Exception as error:  # the Rust library raises plain Exception
            raise BundleError(f"{bundle.tokenizer}: not a tokenizer: {error}") from error
        if graph.device == "cpu":
            tuning = load_tuning(bundle.folder) or Tuning(physical_cores(), TOKEN_BUDGET)
            engine = Engine(graph, threads or tuning.workers, tuning.token_budget)
        else:
            longest = [0] * spec.token_limit
            most = None if gpu_mem_limit is None else gpu_mem_limit - bundle.size
            budget = token_budget(lambda rows: graph.scores(graph.nothing, [longest] * rows), spec.token_limit, most)
            engine = Engine(graph, token_budget=budget)
        kept = (
            None
            if cache is None
            else ScoreCache(cache, f"qe-edge {qe_edge.__version__} {spec.name}@{bundle.digest} {graph.runs_on}")
        )
        return cls(bundle, engine, encoder, kept)

    @property
    def signature(self) -> str:
        """What produced the scores, in one line to be kept beside them."""
        return signature(self.bundle, self.engine.graph.runs_on)

    def score(self, rows: Iterable[Row]) -> Iterator[Score]:
        """One Score per Row, in order. Reads ahead at most two windows of rows; memory does not grow with the stream.

        A row that cannot be read, for which there is not enough memory, or whose score is not a finite number is
        `invalid`, with the reason. Raises UsageError for what holds no rows, for a row with another number of texts
        than the prompt has, unless it has a fault, for one that holds anything but strings, for a scorer that is closed
        or that another process loaded (a forked child), and MemoryError when there is not enough for what the rows have
        in common.
        """
        self.engine.check_usable()
        if not isinstance(rows, Iterable):
            raise UsageError(f"rows must be a list or another iterable of qe_edge.Row, not {shortened(rows)}")
        return self._scores(rows)

    def _scores(self, rows: Iterable[Row]) -> Iterator[Score]:
        stream = map(with_codes if self._prompt.uses_languages else without_languages, map(readable, checked(rows)))
        begun: deque[_Begun] = deque()
        try:
            for window in _windows(stream):
                begun.append(self._begin(window, begun))
                if len(begun) > AHEAD:
                    yield from self._finish(begun[0])
                    begun.popleft()
            while begun:
                yield from self._finish(begun[0])
                begun.popleft()
        finally:
            for unfinished in begun:  # only after an error, or when no more scores are wanted
                _cancel(unfinished.answers.values())

    def _begin(self, window: Sequence[Row], before: Iterable[_Begun]) -> _Begun:
        """Hand the rows to the workers that are new and not in the windows before, which are being run."""
        self.engine.check_usable()
        blocked = [blocking_status(row, self._prompt) for row in window]
        rows = {_key(row): row for row, status in zip(window, blocked, strict=True) if status is None}
        with self._one_thread:
            known = self._recent.known(rows)
        running = {key: answer for begun in before for key, answer in begun.answers.items() if key in rows}
        if self._cache is not None:
            with self._told_when_closed():
                known |= self._cache.known([key for key in rows if key not in known and key not in running])
        new = {key: row for key, row in rows.items() if key not in known and key not in running}
        answers = running | dict(zip(new, self._submit(list(new.values())), strict=True))
        return _Begun(window, blocked, known, answers)

    def _finish(self, begun: _Begun) -> Iterator[Score]:
        self.engine.check_usable()
        found: dict[bytes, Known] = {}
        missing: dict[bytes, str] = {}
        for key, answer in begun.answers.items():
            with self._told_when_closed():
                outcome = answer.wait()
            if isinstance(outcome, str):
                missing[key] = outcome
            else:
                found[key] = outcome
        if self._cache is not None:
            with self._told_when_closed():
                self._cache.keep(found.items())
        scores = begun.known | found
        with self._one_thread:
            self._recent.keep(scores)
        for row, status in zip(begun.rows, begun.blocked, strict=True):
            if status is not None:
                yield Score(None, status, row.fault)
            elif (key := _key(row)) in missing:
                yield Score(None, Status.INVALID, missing[key])
            else:
                score, truncated = scores[key]
                yield Score(score, scored_status(row, self._prompt, truncated, self._trained_pairs))

    @contextmanager
    def _told_when_closed(self) -> Iterator[None]:
        """Raise UsageError for what fails because another thread has closed the scorer meanwhile."""
        try:
            yield
        except (CancelledError, OutputError):
            self.engine.check_usable()
            raise

    def _submit(self, rows: Sequence[Row]) -> list[_Answer]:
        """Answers to distinct rows, in order."""
        answers: dict[int, _Answer] = {}
        try:
            for job in self.jobs(rows):
                future = self.engine.submit(job.past, job.unit, job.bodies)
                for place, row in enumerate(row for family in job.unit for row in family.rows):
                    answers[job.rows[row]] = _Answer(future, place, job.truncated[row])
        except BaseException:
            _cancel(answers.values())
            raise
        return [answers[index] for index in range(len(rows))]

    def jobs(self, rows: Sequence[Row]) -> Iterator[Job]:
        """What there is to run for some rows that can be scored, tokenised and planned."""
        pairs = [language_names(row) for row in rows]
        bodies = self.encoder.bodies([(pair, row.texts) for pair, row in zip(pairs, rows, strict=True)])
        by_pair: dict[Pair, list[int]] = defaultdict(list)
        for index, pair in enumerate(pairs):
            by_pair[pair].append(index)
        for pair, members in by_pair.items():
            past, ids = self._after_prefix(pair, [bodies[i].ids for i in members])
            truncated = [bodies[i].truncated for i in members]
            for unit in plan(ids, [rows[i].texts[0] for i in members], self.engine.token_budget):
                yield Job(past, unit, ids, members, truncated)

    def _after_prefix(self, pair: Pair, bodies: list[list[int]]) -> tuple[Past, list[list[int]]]:
        """The past of a prefix and the bodies after it; without memory for that, no past and all tokens as bodies."""
        with suppress(MemoryError):
            return self._prefix(pair), bodies
        prefix = self.encoder.fixed(pair).prefix
        return self.engine.graph.nothing, [[*prefix, *body] for body in bodies]

    def _prefix(self, pair: Pair) -> Past:
        with self._one_thread:
            if pair not in self._prefixes:
                self._prefixes[pair] = self.engine.graph.prefix(self.encoder.fixed(pair).prefix)
            self._prefixes.move_to_end(pair)
            if len(self._prefixes) > PREFIXES:
                self._prefixes.popitem(last=False)
            return self._prefixes[pair]


def signature(bundle: Bundle, runs_on: str) -> str:
    """The signature of a scorer with this bundle, which runs on "cpu", "cpu with kernels" or "cuda"."""
    spec = bundle.spec
    named = f"bundle {spec.name}@{bundle.digest}"
    return f"qe-edge {qe_edge.__version__} | {named} | {spec.tap_label} | {spec.precision} | {runs_on}"


def _windows(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Rows in windows of WINDOW, or fewer for which about HELD_CHARACTERS are kept.

    After every WINDOW rows of the stream a new one begins, also where some were smaller: a run that is continued there
    has the same windows.
    """
    window: list[Row] = []
    held = 0
    for number, row in enumerate(rows, 1):
        window.append(row)
        held += row.held
        if number % WINDOW == 0 or held >= HELD_CHARACTERS:
            yield window
            window, held = [], 0
    if window:
        yield window


def _cancel(answers: Iterable[_Answer]) -> None:
    """Leave out what no worker has begun."""
    for answer in answers:
        answer.unit.cancel()


def _key(row: Row) -> bytes:
    """Digest of everything that a score depends on."""
    texts = (row.source_language, row.target_language, *row.texts)
    joined = b"".join(len(text).to_bytes(8) + text.encode() for text in texts)
    return blake2b(joined, digest_size=DIGEST).digest()
