"""The shards of a folder: its tables, each with the place of its output."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from qe_edge.errors import InputError, OutputError
from qe_edge.table.formats import SUFFIXES


@dataclass(frozen=True)
class Shard:
    """One table of a folder."""

    name: str
    """its path below the folder, with slashes"""
    source: Path
    target: Path
    """both absolute: a worker may have another working directory"""


def find_shards(folder: Path, target: Path) -> list[Shard]:
    """All tables below a folder whose names end as those of a known kind, in the order of their names.

    What begins with a dot or an underscore is left out, folders too: so do other programs mark what is no data. Raises
    InputError when there is none, OutputError when the outputs would lie in the folder itself, or in a file.
    """
    folder, target = folder.resolve(), target.resolve()
    if target == folder or folder in target.parents:
        raise OutputError(f"{target}: lies in the folder that is scored; give another -o")
    if target.exists() and not target.is_dir():
        raise OutputError(f"{target}: is a file; give a folder, as the input is one")
    paths = [path.relative_to(folder) for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES]
    names = sorted(path.as_posix() for path in paths if not any(part.startswith((".", "_")) for part in path.parts))
    shards = [Shard(name, folder / name, target / name) for name in names if (folder / name).is_file()]
    if not shards:
        raise InputError(f"{folder}: no table in it; give a folder with {', '.join(SUFFIXES)} files")
    return shards
