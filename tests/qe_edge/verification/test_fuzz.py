"""Files with random damage and hashes that agree with it: a bundle loads or is refused, and nothing else happens."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qe_edge import Scorer
from qe_edge.bundle import MODEL_FILE, SPEC_FILE, TOKENIZER_FILE
from qe_edge.errors import BundleError
from tests.qe_edge.conftest import write_counting_bundle
from tests.qe_edge.verification.conftest import record_hashes

SECONDS = 1
"""most CPU time to load a bundle of a few kilobytes, or to refuse it"""
LARGEST = 1 << 20

flips = st.lists(st.tuples(st.integers(0, LARGEST), st.integers(1, 255)), min_size=1, max_size=4)
"""places, taken modulo the length, and what is changed there"""
cuts = st.none() | st.integers(0, LARGEST)
"""where the file ends, modulo its length"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that runs, never changed."""
    return write_counting_bundle(tmp_path_factory.mktemp("whole") / "bundle")


@pytest.mark.parametrize("name", [MODEL_FILE, TOKENIZER_FILE, SPEC_FILE])
@settings(max_examples=150)
@given(flips=flips, cut=cuts)
def test_a_damaged_bundle_loads_or_is_refused(
    whole: Path, tmp_path_factory: pytest.TempPathFactory, name: str, flips: list[tuple[int, int]], cut: int | None
) -> None:
    folder = tmp_path_factory.getbasetemp() / "damaged"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(whole, folder)
    content = bytearray((folder / name).read_bytes())
    for place, change in flips:
        content[place % len(content)] ^= change
    if cut is not None:
        del content[cut % len(content) :]
    (folder / name).write_bytes(content)
    if name != SPEC_FILE:
        record_hashes(folder)

    before = time.process_time()
    try:
        Scorer.load(folder, device="cpu", threads=1)
    except BundleError as error:
        assert "\n" not in str(error)  # noqa: PT017 - most damage is an error, some is harmless
    assert time.process_time() - before < SECONDS
