"""One whole probe: a recipe or run in, the dev curve over its layers out."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from qe_edge.errors import InputError
from qe_edge.metrics import FloatArray
from qe_edge.prompt import Prompt
from qe_edge_train.batches import EncodedSet, encode
from qe_edge_train.build import check_room, prompt_encoder
from qe_edge_train.data import check_dev, load_examples, without
from qe_edge_train.evaluate import dev_sample
from qe_edge_train.objectives.task import row_weights
from qe_edge_train.probe.closed_form import fit_ridge
from qe_edge_train.probe.curve import Layer, Recommendation, dev_curve, recommend
from qe_edge_train.probe.retrieval import LineRange, Retrieval, measure_retrieval, probe_lines
from qe_edge_train.probe.states import last_token_states
from qe_edge_train.probe.subject import Subject, open_subject

Report = Callable[[str], None]


@dataclass(frozen=True)
class ProbeOptions:
    """How much is measured."""

    rows: int
    """training rows of each pair; 0: all"""
    dev_rows: int
    """dev rows of each pair; 0: all"""
    neighbours: int
    """k of the retrieval margin"""
    lines: LineRange | None
    """lines of the parallel texts; none: those that the recipe holds out"""


@dataclass(frozen=True)
class Probe:
    """What a probe found."""

    subject: Subject
    curve: list[Layer]
    """layers 1..L"""
    penalties: list[float]
    """ridge penalty of every layer, as a multiple of the number of training rows"""
    recommendation: Recommendation
    retrieval: Retrieval | None
    """none when the recipe names no parallel texts"""
    train_rows: dict[str, int]
    """rows of each pair that the heads are fitted on"""
    dev_rows: dict[str, int]
    """rows of each pair that they are measured on"""
    seconds: float


def run_probe(
    path: Path, data_folder: Path | None, options: ProbeOptions, device: torch.device, report: Report
) -> Probe:
    """Fit and measure one closed-form head for every layer; all pairs share it, as they do in training.

    Raises InputError or UsageError, with the remedy, for data or options that cannot be measured on.
    """
    started = time.monotonic()
    subject = open_subject(path, data_folder, device)
    recipe, seed = subject.recipe, subject.recipe.optimiser.seed
    parallel = None
    if recipe.alignment is not None or options.lines is not None:
        parallel = probe_lines(recipe, subject.data_folder, options.lines, options.neighbours)
    train, dev = _rows(subject, options, seed)
    report(f"{len(train.examples)} training rows, {len(dev.examples)} dev rows, {subject.layers} layers")
    dtype = recipe.base.dtype
    fit_on = last_token_states(subject.decoder, train, range(len(train.examples)), subject.layers, dtype, device)
    measure_on = last_token_states(subject.decoder, dev, range(len(dev.examples)), subject.layers, dtype, device)
    report(f"states of all layers after {time.monotonic() - started:.0f} s")

    target, weights = _scores(train), row_weights(train, recipe.target).numpy().astype(np.float64)
    heads = [fit_ridge(fit_on[:, i].astype(np.float64), target, weights) for i in range(subject.layers)]
    predicted = np.stack([head.predict(measure_on[:, i].astype(np.float64)) for i, head in enumerate(heads)])
    curve = dev_curve(predicted, _scores(dev), [row.pair for row in dev.examples], subject.facts.blocks, seed)
    retrieval = None if parallel is None else measure_retrieval(subject, parallel, options.neighbours, device)
    return Probe(
        subject=subject,
        curve=curve,
        penalties=[head.penalty for head in heads],
        recommendation=recommend(curve),
        retrieval=retrieval,
        train_rows=dict(Counter(row.pair for row in train.examples)),
        dev_rows=dict(Counter(row.pair for row in dev.examples)),
        seconds=round(time.monotonic() - started, 1),
    )


def _rows(subject: Subject, options: ProbeOptions, seed: int) -> tuple[EncodedSet, EncodedSet]:
    """Samples of training and dev rows; a row in both is a dev row."""
    recipe = subject.recipe
    prompt = Prompt(recipe.head.prompt)
    every, _ = load_examples(recipe.train, recipe.target.column, subject.data_folder, seed, prompt)
    dev, _ = load_examples(recipe.dev, recipe.target.column, subject.data_folder, seed, prompt)
    check_room(recipe.head, subject.facts, {row.names for row in (*every, *dev)})
    encoder = prompt_encoder(subject.facts, recipe.head)
    samples = []
    for rows, limit in ((without(every, dev), options.rows), (dev, options.dev_rows)):
        whole = EncodedSet(rows, [], {})
        samples.append(encode([rows[i] for i in dev_sample(whole, limit, seed)], encoder))
    _check(*samples)
    return samples[0], samples[1]


def _check(train: EncodedSet, dev: EncodedSet) -> None:
    if len(set(_scores(train).tolist())) < 2:
        raise InputError(
            f"{len(train.examples)} training rows without two different scores: nothing to learn; "
            "give other [[train]] tables or more --rows"
        )
    check_dev(dev.examples)


def _scores(data: EncodedSet) -> FloatArray:
    return np.array([row.score for row in data.examples], np.float64)
