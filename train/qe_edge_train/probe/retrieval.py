"""Retrieval accuracy over the layers of a decoder, on lines that alignment never trains on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from qe_edge.errors import InputError, UsageError
from qe_edge.metrics import pearson, spearman
from qe_edge_train.alignment.parallel import ParallelSet, load_parallel
from qe_edge_train.alignment.pooling import encode_sentences
from qe_edge_train.alignment.probe import LayerRetrieval, retrieval_curve
from qe_edge_train.probe.curve import Layer
from qe_edge_train.probe.subject import Subject
from qe_edge_train.recipe import Recipe
from qe_edge_train.session import parallel_sets


@dataclass(frozen=True)
class LineRange:
    """Consecutive lines of parallel files, counted from 1."""

    first: int
    count: int


@dataclass(frozen=True)
class Retrieval:
    """How well mean-pooled states of one language find their translations in the others (arXiv 2502.14830)."""

    languages: tuple[str, ...]
    first_line: int
    last_line: int
    sentences: int
    """lines used: those from first to last that are empty in no language"""
    neighbours: int
    """k of the ratio margin"""
    curve: list[LayerRetrieval]
    """layers 1..L"""

    @property
    def best(self) -> LayerRetrieval:
        """The layer with the highest mean accuracy."""
        return max(self.curve, key=lambda layer: layer.accuracy)


def parse_lines(text: str) -> LineRange:
    """A range from FIRST:COUNT. Raises UsageError when it is none."""
    first, _, count = text.partition(":")
    if not (first.isdecimal() and count.isdecimal() and int(first) > 0 and int(count) > 0):
        raise UsageError(f"--lines {text}: give FIRST:COUNT, both at least 1, as 1001:200")
    return LineRange(int(first), int(count))


def probe_lines(recipe: Recipe, data_folder: Path, asked: LineRange | None, neighbours: int) -> ParallelSet:
    """The lines asked for, else those that the recipe holds out.

    Raises UsageError for lines that [alignment] trains on and when none are held out, InputError for too few.
    """
    if recipe.alignment is None:
        raise UsageError("--lines: the recipe has no [alignment] table that names parallel texts")
    trained, held_out, _ = parallel_sets(recipe.alignment, data_folder)
    if asked is not None:
        held_out = load_parallel(recipe.alignment.texts, data_folder, asked.first, asked.count)
        common = sorted(set(held_out.numbers) & set(trained.numbers))
        if common:
            raise UsageError(
                f"--lines {asked.first}:{asked.count}: [alignment] trains on line {common[0]}; give lines outside "
                f"{trained.numbers[0]} to {trained.numbers[-1]}, or lower its `lines`"
            )
    if held_out is None:
        raise UsageError("[alignment] held_out = 0: no lines to measure retrieval on; raise it or give --lines")
    if len(held_out) < neighbours:
        raise InputError(
            f"retrieval has {len(held_out)} whole lines, but --neighbours {neighbours} needs as many; give more --lines"
        )
    return held_out


def measure_retrieval(subject: Subject, parallel: ParallelSet, neighbours: int, device: torch.device) -> Retrieval:
    """Retrieval at hidden_states[1] to hidden_states[L] between all languages of the parallel lines."""
    alignment, facts = subject.recipe.alignment, subject.facts
    assert alignment is not None
    ids = [
        encode_sentences(facts.tokenizer, facts.bos, parallel.sentences[language], alignment.token_limit)
        for language in parallel.languages
    ]
    bfloat16 = subject.recipe.base.dtype == "bfloat16"
    layers, bos = range(1, subject.layers + 1), facts.bos is not None
    curve = retrieval_curve(subject.decoder, ids, layers, device, neighbours, bfloat16, bos)
    numbers = parallel.numbers
    return Retrieval(parallel.languages, numbers[0], numbers[-1], len(parallel), neighbours, curve)


def correlation_with_quality(retrieval: Retrieval, curve: Sequence[Layer]) -> tuple[float, float] | None:
    """Pearson's and Spearman's correlation over layers of retrieval accuracy and macro Spearman of quality estimation.

    Layers without a macro Spearman are left out. None when fewer than three are left, or when one of the two is the
    same at all of them.
    """
    defined = [i for i, layer in enumerate(curve) if not math.isnan(layer.macro)]
    accuracy, quality = [retrieval.curve[i].accuracy for i in defined], [curve[i].macro for i in defined]
    if len(defined) < 3 or len(set(accuracy)) == 1 or len(set(quality)) == 1:
        return None
    return pearson(accuracy, quality), spearman(accuracy, quality)
