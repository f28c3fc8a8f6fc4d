"""Files cut into groups small enough to travel one at a time, and put together again with their hashes checked.

    python -m benchmarks.gpu.parts pack FILES OUT      # writes OUT/part-1, OUT/part-2, ...
    python -m benchmarks.gpu.parts take PART STORE     # once for each, in any order, any number of times

`take` ends with exit code 3 as long as parts are missing; after the last one STORE/files holds what FILES held. Only
the standard library is used: this runs before anything is installed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

MIB = 1 << 20
PIECE = 50 * MIB
"""Bytes above which a file is cut."""
GROUP = 55 * MIB
"""Bytes of a part at most."""
MANIFEST = "manifest.json"
"""In every part: {"parts": number, "files": {path: {"sha256": ..., "pieces": {name: part}}}}."""
MISSING = 3
"""exit code while parts are missing"""


def sha256(path: Path) -> str:
    """Of a file, as hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def pack(files: Path, out: Path, piece: int = PIECE, group: int = GROUP) -> int:
    """Write all files below a folder to out/part-N, no part larger than `group` bytes; the number of parts.

    Raises ValueError when there are no files, when a piece would not fit into a part, or when `out` holds parts.
    """
    if not 0 < piece <= group:
        raise ValueError(f"pieces of {piece} bytes do not fit into parts of {group}; cut them smaller")
    if list(out.glob("part-*")):
        raise ValueError(f"{out}: holds parts already; delete them, or give another folder")
    described: dict[str, dict[str, Any]] = {}
    room: list[int] = []
    for path in sorted(path for path in files.rglob("*") if path.is_file()):
        name = path.relative_to(files).as_posix()
        pieces: dict[str, str] = {}
        with path.open("rb") as stream:
            for number, _ in enumerate(range(0, max(path.stat().st_size, 1), piece)):
                content = stream.read(piece)
                held = f"{name}.piece-{number:03}"
                index = next((i for i, left in enumerate(room) if left >= len(content)), len(room))
                if index == len(room):
                    room.append(group)
                room[index] -= len(content)
                pieces[held] = f"part-{index + 1}"
                target = out / pieces[held] / held
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
        described[name] = {"sha256": sha256(path), "pieces": pieces}
    if not described:
        raise ValueError(f"{files}: no files to pack")
    manifest = json.dumps({"parts": len(room), "files": described}, indent=2) + "\n"
    for number in range(1, len(room) + 1):
        (out / f"part-{number}" / MANIFEST).write_text(manifest, encoding="utf-8")
    return len(room)


def take(part: Path, store: Path) -> list[str]:
    """Copy the pieces of a part into store/pieces; when all are there, join them. Names of the parts still missing.

    Raises ValueError for a folder that is no part, for one that belongs to other parts than those in the store, and for
    a file whose hash is wrong.
    """
    if not (part / MANIFEST).is_file():
        raise ValueError(f"{part}: no {MANIFEST} there; give a folder part-N that carry.sh wrote")
    manifest = (part / MANIFEST).read_text(encoding="utf-8")
    known = store / MANIFEST
    if known.is_file() and known.read_text(encoding="utf-8") != manifest:
        raise ValueError(f"{store}: holds parts of another carry.sh; give an empty folder")
    store.mkdir(parents=True, exist_ok=True)
    known.write_text(manifest, encoding="utf-8")
    files: dict[str, dict[str, Any]] = json.loads(manifest)["files"]
    wanted = {name: described for name, described in files.items() if not (store / "files" / name).is_file()}
    for held in (held for described in wanted.values() for held in described["pieces"]):
        if (part / held).is_file():
            target = store / "pieces" / held
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(part / held, target)
    missing = {
        number
        for described in wanted.values()
        for held, number in described["pieces"].items()
        if not (store / "pieces" / held).is_file()
    }
    if not missing:
        for name, described in wanted.items():
            join(name, described, store)
        shutil.rmtree(store / "pieces", ignore_errors=True)
    return sorted(missing, key=lambda number: int(number.removeprefix("part-")))


def join(name: str, described: dict[str, Any], store: Path) -> None:
    """Put one file together under store/files."""
    target = store / "files" / name
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    with part.open("wb") as stream:
        for held in described["pieces"]:
            stream.write((store / "pieces" / held).read_bytes())
    if sha256(part) != described["sha256"]:
        shutil.rmtree(store / "pieces")  # which of them is damaged cannot be told
        part.unlink()
        raise ValueError(f"{name}: its hash is not that of the file that was packed; take its parts again")
    part.rename(target)


def main() -> None:
    options_of = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options_of.add_argument("what", choices=("pack", "take"))
    options_of.add_argument("source", type=Path, metavar="FILES|PART")
    options_of.add_argument("target", type=Path, metavar="OUT|STORE")
    options = options_of.parse_args()
    try:
        if options.what == "pack":
            print(f"{options.target}: {pack(options.source, options.target)} parts")
        elif missing := take(options.source, options.target):
            print(f"{options.source.name} taken; missing: {', '.join(missing)}", file=sys.stderr)
            sys.exit(MISSING)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
