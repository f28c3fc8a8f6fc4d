"""That the collector of cycles comes back as it was."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from qe_edge.bundle import open_bundle
from qe_edge.collector import no_collection
from qe_edge.errors import BundleError


@pytest.fixture(autouse=True)
def _collector_is_on() -> Iterator[None]:
    gc.enable()
    yield
    gc.enable()


def test_it_is_off_within_and_on_afterwards() -> None:
    with no_collection():
        assert not gc.isenabled()
        with no_collection():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()


def test_who_has_it_off_keeps_it_off() -> None:
    gc.disable()
    with no_collection():
        pass
    assert not gc.isenabled()


def test_it_is_on_again_after_a_bundle_that_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError):
        open_bundle(tmp_path / "none")
    assert gc.isenabled()
