"""How a bundle runs fastest on one machine: found by `qe-edge bench --tune`, kept beside the bundle."""

from __future__ import annotations

import errno
import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from qe_edge.errors import BundleError, OutputError
from qe_edge.scoring.machine import machine_name


@dataclass(frozen=True)
class Tuning:
    """Settings that change speed and no score."""

    workers: int
    """batches run at once"""
    token_budget: int
    """padded tokens of a batch"""


def tuning_file(bundle: Path) -> Path:
    """BUNDLE.tuning.json, beside the folder: what lies in the folder is part of the bundle and never changes."""
    folder = bundle.resolve()
    return folder.with_name(f"{folder.name}.tuning.json")


def load_tuning(bundle: Path) -> Tuning | None:
    """The tuning of a bundle on this machine; None where there is none, or only another machine's.

    Raises BundleError for a file that is no tuning.
    """
    path = tuning_file(bundle)
    try:
        found = json.loads(path.read_text(encoding="utf-8")).get(machine_name())
        tuning = None if found is None else Tuning(**found)
        valid = tuning is None or all(type(value) is int and value > 0 for value in asdict(tuning).values())
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:  # that of the folder alone was not
            return None
        valid = False
    except (ValueError, TypeError, AttributeError):
        valid = False
    if not valid:
        raise BundleError(f"{path}: not a tuning; delete it, or write it anew with qe-edge bench --tune")
    return tuning


def save_tuning(bundle: Path, tuning: Tuning) -> Path:
    """Keep a tuning for this machine; those of other machines stay. Raises OutputError when it cannot be written."""
    path = tuning_file(bundle)
    new = path.with_name(f"{path.name}.new")
    try:
        kept = _entries(path) if path.exists() else {}
        new.write_text(json.dumps(kept | {machine_name(): asdict(tuning)}, indent=2) + "\n", encoding="utf-8")
        new.replace(path)
    except OSError as error:
        with suppress(OSError):
            new.unlink()  # what a full disk took of it
        raise OutputError(
            f"{path}: cannot be written: {error.strerror}; free some space there, or copy the bundle to a folder of "
            "your own and tune it there"
        ) from None
    return path


def _entries(path: Path) -> dict[str, Any]:
    """The entries of a file by machine; none of a broken file, which is written anew."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}
