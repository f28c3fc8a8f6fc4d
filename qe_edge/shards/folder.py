"""The shards of a folder: its tables, each with the place of its output."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from qe_edge.errors import InputError, OutputError
from qe_edge.table.formats import SUFFIXES
from qe_edge.table.paths import is_folder, mode


@dataclass(frozen=True)
class Shard:
    """One table of a folder."""

    name: str
    """its path below the folder, with slashes"""
    source: Path
    target: Path
    """both absolute: a worker may have another working directory; the target without links, as it is written"""
    fault: str | None = None
    """why nobody can say which tables there are: it is a folder that cannot be read"""


def find_shards(folder: Path, target: Path) -> list[Shard]:
    """All tables below a folder whose names end as those of a known kind, in the order of their names.

    Links are followed. What begins with a dot or an underscore is left out, folders too: so do other programs mark what
    is no data. Everything else of such a name is a shard, even if it cannot be read, and so is a folder that cannot be
    read: whoever looks at it says so. Raises InputError when there is none or the folder itself cannot be read,
    OutputError when an output would lie in a folder that is read, would overwrite a table, or when `target` is a file.
    """
    folder, target = Path(os.path.realpath(folder)), Path(os.path.realpath(target))
    if target == folder or folder in target.parents:
        raise OutputError(f"{target}: lies in the folder that is scored; give another -o")
    if mode(target) and not is_folder(target):
        raise OutputError(f"{target}: is a file; give a folder, as the input is one")
    unreadable: list[OSError] = []
    read: set[str] = set()
    names: list[str] = []
    for below, files in _folders(folder, unreadable):
        read.add(os.path.realpath(folder / below))
        names += [(below / name).as_posix() for name in files if Path(name).suffix.lower() in SUFFIXES]
    faults = {Path(error.filename or folder).relative_to(folder).as_posix(): error.strerror for error in unreadable}
    if "." in faults:
        raise InputError(f"{folder}: cannot be read ({faults['.']}); check its permissions")
    shards = [
        Shard(name, folder / name, Path(os.path.realpath(target / name)), faults.get(name))
        for name in sorted([*names, *faults])
    ]
    if not shards:
        raise InputError(f"{folder}: no table in it; give a folder with {', '.join(SUFFIXES)} files")
    _refuse_outputs_among_inputs(shards, read)
    return shards


def left_out(folder: Path) -> list[str]:
    """Paths below a folder of the files in it whose names do not end as those of tables, in order.

    What begins with a dot or an underscore is not among them.
    """
    folder = Path(os.path.realpath(folder))
    files = [below / name for below, names in _folders(folder, []) for name in names]
    return sorted(file.as_posix() for file in files if file.suffix.lower() not in SUFFIXES)


def _folders(folder: Path, unreadable: list[OSError]) -> Iterator[tuple[Path, list[str]]]:
    """Every folder from this one downwards, by its path below it, with the names of its files.

    Errors of folders that cannot be read are added to `unreadable`. A link back to a folder that it lies in is not
    followed: all that is there is found without it.
    """
    for place, folders, files in os.walk(folder, onerror=unreadable.append, followlinks=True):
        below = Path(place).relative_to(folder)
        above = {os.path.realpath(folder / part) for part in (below, *below.parents)}
        folders[:] = [
            name for name in folders if _is_data(name) and os.path.realpath(folder / below / name) not in above
        ]
        yield below, [name for name in files if _is_data(name)]


def _is_data(name: str) -> bool:
    return not name.startswith((".", "_"))


def _refuse_outputs_among_inputs(shards: Sequence[Shard], read: set[str]) -> None:
    """Raise OutputError where an output would lie in one of the folders read, or be a file that is a table, too."""
    tables = {_file(shard.source): shard.source for shard in shards}
    tables.pop(None, None)
    for shard in shards:
        if str(shard.target.parent) in read:
            raise OutputError(f"{shard.target}: lies in a folder that is scored; give another -o")
        file = _file(shard.target)
        if file in tables:
            raise OutputError(f"{shard.target}: is the same file as {tables[file]}, which is scored; give another -o")


def _file(path: Path) -> tuple[int, int] | None:
    """Which file this is, whatever its name: device and number; None where there is none to be seen."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
