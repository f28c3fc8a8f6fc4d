"""Files that cannot be read or written end a command in one line, with the remedy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten

from safetensors import SafetensorError

from qe_edge.errors import InputError, OutputError


@contextmanager
def reading(path: Path, *damage: type[Exception], remedy: str = "copy it again or train again") -> Iterator[None]:
    """Raise InputError about `path` for an OSError inside, and for the errors that `damage` to its content causes."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {reason(error)}; {remedy}") from None
    except damage as error:
        raise InputError(f"{path}: damaged ({reason(error)}); {remedy}") from None


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Raise OutputError about `folder` when something inside cannot be written to it.

    Only for commands that continue when they are given again.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:  # safetensors has an error of its own for a full disk
        raise OutputError(
            f"{folder}: cannot be written: {reason(error)}; make room or allow writing there, "
            "and the same command continues"
        ) from None


def reason(error: Exception) -> str:
    """What a library says went wrong, in one short line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, KeyError):
        return f"no {error}"
    return shorten(str(error), 200, placeholder=" ...") or type(error).__name__
