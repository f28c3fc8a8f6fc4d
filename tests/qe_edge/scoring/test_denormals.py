"""Workers take denormal numbers for zero; the thread that uses the library does not."""

from __future__ import annotations

import platform
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from qe_edge.bundle import open_bundle
from qe_edge.scoring.denormals import flush_denormals
from qe_edge.scoring.scorer import Scorer

DENORMAL = 1e-39
"""a float32 below the smallest normal one, 1.18e-38"""

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64", reason="elsewhere nothing is set"
)


def survives() -> bool:
    """Whether a product that is denormal is more than zero in this thread."""
    return bool((np.full(64, DENORMAL * 2, np.float32) * np.float32(0.5) > 0).all())


def test_a_thread_flushes_and_its_parent_does_not() -> None:
    with ThreadPoolExecutor(1, initializer=flush_denormals) as flushing, ThreadPoolExecutor(1) as plain:
        assert not flushing.submit(survives).result()
        assert plain.submit(survives).result()
    assert survives()


def test_normal_numbers_are_as_they_were() -> None:
    values = np.random.default_rng(0).standard_normal((40, 64)).astype(np.float32)
    with ThreadPoolExecutor(1, initializer=flush_denormals) as flushing:
        found = flushing.submit(lambda: values @ values.T).result()
    np.testing.assert_array_equal(found, values @ values.T)


def test_workers_of_a_scorer_flush(counting_bundle: Path) -> None:
    scorer = Scorer.of(open_bundle(counting_bundle), device="cpu")
    assert not scorer.engine._pool.submit(survives).result()
    assert survives()
