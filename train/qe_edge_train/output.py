"""Where a command may write, found out before it works, folders that are complete or not there, and their JSON."""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from qe_edge.errors import OutputError


def check_output(folder: Path) -> None:
    """Raise OutputError unless a report can be written to `folder`, new or empty; nothing is made here."""
    _check_writable(folder, folder)
    if not folder.is_dir():
        return
    try:
        names = [path.name for path in folder.iterdir()]
    except OSError as error:
        raise OutputError(f"{folder}: cannot be read: {error.strerror}; give another -o") from None
    if names:
        raise OutputError(f"{folder}: holds other files ({min(names)}); give a new or empty folder with -o")


def check_new_folder(folder: Path) -> None:
    """Raise OutputError unless `folder` can be made beside its place and moved there; nothing is made here."""
    _check_writable(folder, folder.absolute().parent)


@contextmanager
def new_folder(folder: Path, move: Callable[[Path, Path], object] = Path.rename) -> Iterator[Path]:
    """A hidden folder beside `folder`, which takes its place once it is written; otherwise nothing stays.

    move: puts the first in the place of the second; by default an empty folder may be there. Raises OutputError when it
    cannot be written.
    """
    from safetensors import SafetensorError  # here: commands import this module where it may not be installed

    from qe_edge_train.guards import reason

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written: {error.strerror}; give another -o") from None
    try:
        yield part
        part.chmod(0o755)  # temporary folders are private
        move(part, folder)
    except (OSError, SafetensorError) as error:
        raise OutputError(f"{folder}: cannot be written: {reason(error)}; make room or give another -o") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _check_writable(folder: Path, place: Path) -> None:
    """Raise OutputError unless something can be written at `place`, which need not exist yet, for `folder`."""
    nearest = next(path for path in (place, *place.absolute().parents) if os.path.lexists(path))
    if not nearest.is_dir():
        raise OutputError(f"{folder}: cannot be written: {nearest} is not a folder; give another -o")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise OutputError(f"{folder}: cannot be written: {nearest} allows no new files; give another -o")


def json_text(content: Mapping[str, Any], indent: int | None = 2) -> str:
    """JSON of a report, or one line of it without an indent. What is no finite number is null: JSON knows no other."""
    return json.dumps(without_nan(content), ensure_ascii=False, indent=indent, allow_nan=False) + "\n"


def without_nan(value: Any) -> Any:
    """The same with None for every number that is not finite."""
    if isinstance(value, Mapping):
        return {key: without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def with_nan(value: Any) -> Any:
    """The same with nan for every None: figures as they were before `without_nan`."""
    if isinstance(value, dict):
        return {key: with_nan(inner) for key, inner in value.items()}
    return math.nan if value is None else value
