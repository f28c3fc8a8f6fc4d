"""Settings and fixtures of all tests. It imports no torch, so that the light install can be tested with it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import settings

# The tests' models are tiny: torch's threads would wait for each other longer than they compute.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# No test may ask a model hub for anything, nor any process that a test starts.
os.environ["HF_HUB_OFFLINE"] = "1"

# A busy machine makes single examples slow now and then; that is no failure of the code under test.
settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def sample(repository: Path) -> Path:
    """28 rows of MLQE-PE, four for each of seven language pairs."""
    return repository / "examples" / "mlqe-pe-sample.tsv"


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file of this process may grow beyond so many bytes, as on a disk that is full."""
    import resource  # not on Windows

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
