"""Rows in, scores out: windows of a stream, deduplicated, tokenised, sorted, batched, run and put back in order."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Literal

from tokenizers import Tokenizer

import qe_edge
from qe_edge.bundle import EMBEDDED_BUNDLE, Bundle, open_bundle
from qe_edge.errors import BundleError, InputError
from qe_edge.languages import english_name, resolve
from qe_edge.rows import Row, Score
from qe_edge.scoring.batching import TOKEN_BUDGET, length_sorted_batches
from qe_edge.scoring.graph import Graph, KeyValueShape, Past, open_graph, pad
from qe_edge.scoring.screening import blocking_status, scored_status
from qe_edge.tokens import Body, Pair, PromptEncoder

Device = Literal["auto", "cpu", "cuda"]

WINDOW = 1024
"""Rows held at once: as far as a row may wait, and the range over which lengths are sorted."""
REMEMBERED = 1 << 16
"""Scores of recent rows kept so that a repeated row is run once; bounds memory, not correctness."""


class Scorer:
    """Scores rows with one bundle. Construct it with `Scorer.load`.

    A row's score depends on its texts and its languages alone: not on its neighbours, their order or the batch.
    """

    def __init__(self, bundle: Bundle, graph: Graph, encoder: PromptEncoder, token_budget: int = TOKEN_BUDGET) -> None:
        self.bundle = bundle
        self.token_budget = token_budget
        self._graph = graph
        self._encoder = encoder
        self._prompt = encoder.prompt
        self._trained_pairs = frozenset(bundle.spec.language_pairs)
        self._prefixes: dict[Pair, Past] = {}
        self._remembered: OrderedDict[bytes, tuple[float, bool]] = OrderedDict()

    @classmethod
    def load(cls, path: Path | str | None = None, *, device: Device = "auto", threads: int | None = None) -> Scorer:
        """Verify a bundle folder (None: the embedded bundle) and prepare it for scoring. Opens no connection.

        device: "auto" takes a GPU where it can run the bundle; threads: CPU threads, None for all cores.
        Raises BundleError for a bundle that is missing or damaged and DeviceError for a device that cannot run it.
        """
        return cls.of(open_bundle(EMBEDDED_BUNDLE if path is None else Path(path)), device=device, threads=threads)

    @classmethod
    def of(cls, bundle: Bundle, *, device: Device = "auto", threads: int | None = None) -> Scorer:
        """As `load`, for a bundle that has been verified already."""
        spec = bundle.spec
        shape = KeyValueShape(spec.blocks_kept, spec.kv_heads, spec.head_dim)
        graph = open_graph(bundle.model, shape, spec.precision, device, threads)
        try:
            tokenizer = Tokenizer.from_file(str(bundle.tokenizer))
        except Exception as error:  # the Rust library raises plain Exception
            raise BundleError(f"{bundle.tokenizer}: not a tokenizer: {error}") from error
        return cls(bundle, graph, PromptEncoder(tokenizer, bundle.prompt, spec.bos, spec.token_limit))

    @property
    def signature(self) -> str:
        """What produced the scores, in one line to be kept beside them."""
        spec = self.bundle.spec
        bundle = f"bundle {spec.name}@{self.bundle.digest}"
        return f"qe-edge {qe_edge.__version__} | {bundle} | {spec.tap_label} | {spec.precision} | {self._graph.device}"

    def score(self, rows: Iterable[Row]) -> Iterator[Score]:
        """One Score per Row, in order. Reads ahead at most `WINDOW` rows; memory does not grow with the stream.

        Raises UsageError for a row with another number of texts than the prompt has, unless it has a fault.
        """
        stream = map(_with_codes if self._prompt.uses_languages else _without_languages, rows)
        while window := list(islice(stream, WINDOW)):
            yield from self._score_window(window)

    def _score_window(self, window: Sequence[Row]) -> Iterator[Score]:
        blocked = [blocking_status(row, self._prompt) for row in window]
        rows = {_key(row): row for row, status in zip(window, blocked, strict=True) if status is None}
        known = {key: self._remembered[key] for key in rows.keys() & self._remembered.keys()}
        new = {key: row for key, row in rows.items() if key not in known}
        known.update(zip(new, self._run(list(new.values())), strict=True))
        self._remember(known)
        for row, status in zip(window, blocked, strict=True):
            if status is not None:
                yield Score(None, status)
            else:
                value, truncated = known[_key(row)]
                yield Score(value, scored_status(row, self._prompt, truncated, self._trained_pairs))

    def _remember(self, known: dict[bytes, tuple[float, bool]]) -> None:
        for key, value in known.items():
            self._remembered[key] = value
            self._remembered.move_to_end(key)
        while len(self._remembered) > REMEMBERED:
            self._remembered.popitem(last=False)

    def _run(self, rows: Sequence[Row]) -> list[tuple[float, bool]]:
        """Score and truncation of distinct rows, in order."""
        pairs = [_names(row) for row in rows]
        bodies = self._encoder.bodies([(pair, row.texts) for pair, row in zip(pairs, rows, strict=True)])
        by_pair: dict[Pair, list[int]] = defaultdict(list)
        for index, pair in enumerate(pairs):
            by_pair[pair].append(index)
        scores = [0.0] * len(rows)
        for pair, members in by_pair.items():
            past = self._prefix(pair)
            for batch in length_sorted_batches([len(bodies[i].ids) for i in members], self.token_budget):
                indices = [members[i] for i in batch]
                for index, score in zip(indices, self._run_batch(past, [bodies[i] for i in indices]), strict=True):
                    scores[index] = score
        return [(score, body.truncated) for score, body in zip(scores, bodies, strict=True)]

    def _run_batch(self, past: Past, bodies: Sequence[Body]) -> list[float]:
        tokens, last = pad([body.ids for body in bodies])
        scores: list[float] = self._graph.run(past, tokens, last)[0].tolist()
        return scores

    def _prefix(self, pair: Pair) -> Past:
        if pair not in self._prefixes:
            self._prefixes[pair] = self._graph.prefix(self._encoder.fixed(pair).prefix)
        return self._prefixes[pair]


def _with_codes(row: Row) -> Row:
    """The row with its languages as codes; with a fault if one of them is unknown."""
    if row.fault is not None:
        return row
    codes = _codes(row.source_language, row.target_language)
    if codes is None:
        return replace(row, fault=f"unknown language in {row.pair!r}")
    if codes == (row.source_language, row.target_language):
        return row
    return replace(row, source_language=codes[0], target_language=codes[1])


def _without_languages(row: Row) -> Row:
    """The row without its languages, which play no part in a prompt that names none."""
    return replace(row, source_language="", target_language="")


@lru_cache(maxsize=4096)
def _codes(source_language: str, target_language: str) -> tuple[str, str] | None:
    """Codes of both languages, or None: `resolve` remembers answers but not refusals, which take it long."""
    try:
        return resolve(source_language), resolve(target_language)
    except InputError:
        return None


def _names(row: Row) -> Pair:
    """English names of a row's languages; two empty ones for a row without them."""
    if not row.source_language:
        return "", ""
    return english_name(row.source_language), english_name(row.target_language)


def _key(row: Row) -> bytes:
    """Digest of everything that a score depends on."""
    texts = (row.source_language, row.target_language, *row.texts)
    joined = b"".join(len(text).to_bytes(8) + text.encode("utf-8", "surrogateescape") for text in texts)
    return blake2b(joined, digest_size=16).digest()
