"""The profile counts the arithmetic of the embedded bundle as it is worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from qe_edge import Scorer
from qe_edge.bench.operators import FLOAT_PRODUCTS, INT8_PRODUCTS, profile
from qe_edge.scoring.batching import Family
from qe_edge.scoring.scorer import Job

HIDDEN, INNER, KEYS, BLOCKS = 576, 1536, 192, 20
"""of SmolLM2-135M cut at TL-11"""
PREFIX = 3


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return Scorer.load(device="cpu", threads=1)


def job(scorer: Scorer, rows: int, length: int) -> Job:
    past = scorer.engine.graph.prefix(list(range(1, PREFIX + 1)))
    bodies = np.random.default_rng(0).integers(20, 40000, (rows, length)).tolist()
    return Job(past, [Family([], list(range(rows)))], bodies, list(range(rows)), [False] * rows)


def test_operations_a_token_are_those_of_the_weights(scorer: Scorer) -> None:
    rows, length = 3, 8
    keys_and_values = HIDDEN * 2 * KEYS
    the_rest = 2 * HIDDEN * HIDDEN + 3 * HIDDEN * INNER
    # the last block has keys and values of all positions, and one position of each row is all that it computes
    weights = rows * length * (BLOCKS * keys_and_values + (BLOCKS - 1) * the_rest) + rows * the_rest

    found = profile(scorer.bundle, [job(scorer, rows, length), job(scorer, rows, length)])

    assert found.tokens == 2 * rows * length
    assert found.operations(INT8_PRODUCTS) == pytest.approx(2 * weights / (rows * length), rel=1e-9)
    seen = PREFIX + length
    queries = rows * length * (BLOCKS - 1) + rows * 2  # which asks twice (qe_edge_train/attention.py)
    attention = 4 * HIDDEN * seen * queries
    head = 2 * HIDDEN * rows
    assert found.operations(FLOAT_PRODUCTS) == pytest.approx((attention + head) / (rows * length), rel=1e-9)


def test_every_call_counts_but_those_of_the_first_run(scorer: Scorer) -> None:
    calls = {o.name: o.calls for o in profile(scorer.bundle, [job(scorer, 2, 4)] * 3).operators}
    assert calls["Attention"] + calls.get("AttendQuantize", 0) == 3 * BLOCKS
    products = {name: 2 if name == "GatedQuantize" else 1 for name in INT8_PRODUCTS}
    assert sum(calls.get(name, 0) * each for name, each in products.items()) == 3 * 7 * BLOCKS


def test_operators_come_slowest_first(scorer: Scorer) -> None:
    found = profile(scorer.bundle, [job(scorer, 4, 32)])
    seconds = [operator.seconds for operator in found.operators]
    assert seconds == sorted(seconds, reverse=True)
    assert found.operators[0].name in INT8_PRODUCTS
    assert found.seconds == pytest.approx(sum(seconds))
