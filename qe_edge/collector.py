"""Python's collector of cycles, left off where much is read that has none."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_collection() -> Iterator[None]:
    """For loading a bundle: hundreds of thousands of objects are made, none of them in a cycle, and going through them
    again and again took a tenth of the time from start to end of a short run (docs/performance.md)."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
