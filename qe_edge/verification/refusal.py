"""The one form of a refusal: the file, what is wrong with it, and what to do."""

from __future__ import annotations

from pathlib import Path
from reprlib import Repr

from qe_edge.errors import BundleError

REMEDY = "qe-edge export writes no such bundle: export it again or fetch a fresh copy"

_SHORT = Repr()
_SHORT.maxstring = 60


def refusal(path: Path, reason: str) -> BundleError:
    """The error to raise for a file that no export writes."""
    return BundleError(f"{path}: {reason}; {REMEDY}")


def shown(value: object) -> str:
    """A stranger's value as part of a message: short, on one line, without control characters."""
    return _SHORT.repr(value)
