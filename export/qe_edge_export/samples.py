"""The rows on which an export is calibrated, its head refitted and its scores checked.

Legend: B rows, S body tokens, H hidden size.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qe_edge.bundle import MODEL_FILE, WEIGHTS_FILE
from qe_edge.errors import InputError
from qe_edge.prompt import Prompt
from qe_edge.scoring.graph import Graph, KeyValueShape, pad
from qe_edge.scoring.machine import physical_cores
from qe_edge.tokens import PromptEncoder
from qe_edge_export.graph import state_outputs
from qe_edge_train.batches import EncodedSet, encode
from qe_edge_train.data import Example, check_dev, check_train, load_examples, without
from qe_edge_train.run import Run

BATCH_SIZE = 16
TYPICAL_PAIRS = 7
"""Language pairs of MLQE-PE, on which the sizes of samples were chosen."""


@dataclass(frozen=True)
class SampleSizes:
    """Rows per language pair; all there are where a table has fewer."""

    calibration: int = 12
    """training rows whose activations are measured"""
    refit: int = 150
    """training rows for the head"""
    gate: int = 100
    """dev rows whose scores are compared"""
    doubt: int = 400
    """dev rows, those of the gate among them, where the gate's leave open whether too much correlation is lost"""

    @classmethod
    def spread(cls, pairs: int) -> SampleSizes:
        """The sizes for a run of so many language pairs: what the defaults are for TYPICAL_PAIRS, and with fewer pairs
        more rows each, so that there are as many in all. A head is refitted to all pairs together, and a correlation on
        few rows says little."""
        factor = max(1.0, TYPICAL_PAIRS / pairs)
        return cls(*(round(size * factor) for size in (cls.calibration, cls.refit, cls.gate, cls.doubt)))


@dataclass(frozen=True)
class Samples:
    """Encoded rows for each purpose, those of a language pair together."""

    calibration: EncodedSet
    refit: EncodedSet
    gate: EncodedSet
    doubt: EncodedSet
    changed: list[str]
    """paths of tables that are no longer what the training read"""


def load_samples(run: Run, data_folder: Path, sizes: SampleSizes | None = None) -> Samples:
    """Random rows of a run's own tables, the same in every call, encoded as the bundle will encode them.

    Training rows that are also in dev are left out, as in training. For cases of doubt there are also rows of the dev
    tables that the recipe's own samples left out. Raises InputError when tables or tokenizer cannot be read.
    """
    recipe = run.recipe
    if not data_folder.is_dir():
        raise InputError(f"{data_folder}: no such data folder (the one of the run); say where it is now with --data")
    seed = recipe.optimiser.seed
    prompt = Prompt(recipe.head.prompt)
    for table in (*recipe.train, *recipe.dev):
        if not (data_folder / table.path).is_file():
            raise InputError(f"{data_folder / table.path}: no such file; say where the tables are now with --data")
    dev, of_dev = load_examples(recipe.dev, recipe.target.column, data_folder, seed, prompt)
    train, of_train = load_examples(recipe.train, recipe.target.column, data_folder, seed, prompt)
    read = {(file["path"], file["sha256"]) for file in run.facts.data}
    changed = [table.path for table in [*of_train, *of_dev] if (table.path, table.sha256) not in read]
    clean = without(train, dev)
    check_train(clean)
    check_dev(dev)
    by_pair = _shuffled(clean, seed)
    sizes = sizes or SampleSizes.spread(len(by_pair))
    calibration = [row for rows in by_pair for row in rows[: sizes.calibration]]
    refit = [row for rows in by_pair for row in rows[: sizes.refit]]
    dev_by_pair = {rows[0].pair: rows for rows in _shuffled(dev, seed)}
    gate = [row for rows in dev_by_pair.values() for row in rows[: sizes.gate]]
    # a recipe's `rows` is a sample for the training: what it left of the dev tables may decide here
    whole, _ = load_examples(
        [replace(table, rows=0) for table in recipe.dev], recipe.target.column, data_folder, seed, prompt
    )
    more = {rows[0].pair: rows for rows in _shuffled(without(whole, [*dev, *train]), seed)}
    doubt = [row for pair, rows in dev_by_pair.items() for row in (rows + more.get(pair, []))[: sizes.doubt]]
    encoder = PromptEncoder(
        run.tokenizer(),
        prompt,
        run.facts.bos,
        recipe.head.token_limit,
    )
    return Samples(
        encode(calibration, encoder),
        encode(refit, encoder),
        encode(gate, encoder),
        encode(doubt, encoder),
        list(dict.fromkeys(changed)),
    )


def _shuffled(rows: Sequence[Example], seed: int) -> list[list[Example]]:
    """Rows by language pair, shuffled within a pair."""
    by_pair: dict[str, list[Example]] = {}
    for row in rows:
        by_pair.setdefault(row.pair, []).append(row)
    for pair, own in by_pair.items():
        random.Random(f"{seed}/{pair}").shuffle(own)
    return list(by_pair.values())


@dataclass(frozen=True)
class PairRows:
    """Rows of one language pair."""

    prefix: list[int]
    """token ids that all rows start with"""
    bodies: list[list[int]]
    """token ids of each row after the prefix"""


@dataclass(frozen=True)
class RunBatch:
    """What a graph gave for one batch."""

    outputs: list[NDArray[Any]]
    """the named outputs, in the order asked for; those of tokens are [B, S, ...], padded on the right"""
    lengths: NDArray[np.int64]
    """[B] real tokens of each row"""
    rows: list[int]
    """[B] number of each row, counted through all pairs"""

    @property
    def real(self) -> NDArray[np.bool_]:
        """[B, S] true where a token is real, false where it is padding."""
        every: NDArray[np.int64] = np.arange(int(self.lengths.max()))
        return every[None, :] < self.lengths[:, None]


@dataclass(frozen=True)
class CalibrationRows:
    """Rows that can be run through any graph with the inputs of `export_states`."""

    pairs: tuple[PairRows, ...]
    shape: KeyValueShape

    @classmethod
    def of(cls, data: EncodedSet, shape: KeyValueShape) -> CalibrationRows:
        """The rows of an encoded set; when it holds those of a pair together, in the same order."""
        pairs = []
        for pair in data.pairs:
            rows = [i for i, example in enumerate(data.examples) if example.pair == pair]
            prefix = data.prefixes[data.examples[rows[0]].names]
            pairs.append(PairRows(prefix, [data.bodies[i] for i in rows]))
        return cls(tuple(pairs), shape)

    def __len__(self) -> int:
        return sum(len(pair.bodies) for pair in self.pairs)

    def run(self, model: ir.Model, outputs: Sequence[str]) -> Iterator[RunBatch]:
        """Run a graph over all rows: each pair's prefix once, then its bodies in length-sorted batches.

        outputs: names of graph outputs or of values inside the graph.
        """
        with opened(model, self.shape, outputs) as graph:
            yield from self.batches(graph, outputs)

    def batches(
        self, graph: Graph, outputs: Sequence[str], batch_size: int = BATCH_SIZE, by_length: bool = True
    ) -> Iterator[RunBatch]:
        """As `run`, on an open graph. by_length: whether a pair's bodies are sorted by length or taken as they come."""
        first = 0
        for pair in self.pairs:
            past = graph.prefix(pair.prefix)
            order = list(range(len(pair.bodies)))
            if by_length:
                order.sort(key=lambda i: len(pair.bodies[i]))
            for start in range(0, len(order), batch_size):
                chosen = order[start : start + batch_size]
                tokens, last = pad([pair.bodies[i] for i in chosen])
                yield RunBatch(graph.run(past, tokens, last, outputs), last + 1, [first + i for i in chosen])
            first += len(pair.bodies)

    def whole_prompts(self) -> CalibrationRows:
        """The same rows without a shared prefix: its tokens are part of every body, and seen as often as they are
        read."""
        pairs = (PairRows([], [pair.prefix + body for body in pair.bodies]) for pair in self.pairs)
        return CalibrationRows(tuple(pairs), self.shape)

    def states(self, model: ir.Model) -> NDArray[np.float32]:
        """Tapped states [n, K, H] of all rows, in row order, from the outputs that hold them."""
        batches = list(self.run(model, [str(value.name) for value in state_outputs(model)]))
        rows = [row for batch in batches for row in batch.rows]
        states = np.concatenate([np.stack(batch.outputs, 1) for batch in batches])
        return states[np.argsort(rows)]

    def scores(self, graph: Graph, batch_size: int = BATCH_SIZE, by_length: bool = True) -> NDArray[np.float32]:
        """Scores [n] of all rows, in row order, from an open graph with a head."""
        return _in_row_order(self.batches(graph, ["score"], batch_size, by_length))


def _in_row_order(batches: Iterator[RunBatch]) -> NDArray[np.float32]:
    values: list[NDArray[np.float32]] = []
    rows: list[int] = []
    for batch in batches:
        values.append(batch.outputs[0])
        rows += batch.rows
    return np.concatenate(values)[np.argsort(rows)]


@contextmanager
def opened(model: ir.Model, shape: KeyValueShape, outputs: Sequence[str] = ()) -> Iterator[Graph]:
    """A graph in ONNX Runtime, on the CPU, from a temporary folder. `outputs` may name values inside the graph."""
    graph = model.graph
    known = {value.name for value in graph.outputs}
    inside = {value.name: value for node in graph for value in node.outputs}
    before = list(graph.outputs)
    with tempfile.TemporaryDirectory(prefix="qe-edge-") as folder:
        path = Path(folder) / MODEL_FILE
        graph.outputs.extend(inside[name] for name in dict.fromkeys(outputs) if name not in known)
        try:
            ir.save(model, path, external_data=WEIGHTS_FILE)
        finally:
            graph.outputs[:] = before
        yield Graph(path, shape, threads=physical_cores())  # one batch at a time, on all cores
