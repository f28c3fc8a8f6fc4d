"""Where a command that measures may write, found out before it measures, and the JSON that it writes there."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qe_edge.errors import OutputError


def check_output(folder: Path, result: str) -> None:
    """Raise OutputError unless a report can be written to `folder`, which need not exist yet; nothing is made here.

    result: the file that is written last, whose presence means that the folder holds a report already.
    """
    if os.path.lexists(folder / result):
        raise OutputError(f"{folder}: holds a report already ({result}); give another -o or delete it")
    nearest = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not nearest.is_dir():
        raise OutputError(f"{folder}: cannot be written: {nearest} is not a folder; give another -o")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise OutputError(f"{folder}: cannot be written: {nearest} allows no new files; give another -o")


def json_text(content: Mapping[str, Any]) -> str:
    """JSON of a report; undefined numbers (nan) are null, since JSON has no nan."""
    return json.dumps(_plain(content), ensure_ascii=False, indent=2, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and math.isnan(value) else value
