"""What a path leads to. Where the system does not let us look, that is nothing: opening it then says why.

`pathlib` of Python 3.11 raises there, as for a folder without permission or a name that is too long.
"""

from __future__ import annotations

import re
import stat
from contextlib import suppress
from pathlib import Path

_OPEN_FILE = re.compile(r"/(?:dev|proc/self)/fd/(\d{1,9})")


def mode(path: str | Path) -> int:
    """Type and permissions (`stat.st_mode`), 0 for nothing."""
    try:
        return Path(path).stat().st_mode
    except (OSError, ValueError):  # ValueError: a NUL byte in the name
        return 0


def is_folder(path: str | Path) -> bool:
    return stat.S_ISDIR(mode(path))


def is_file(path: str | Path) -> bool:
    """Whether it is an ordinary file: no device, no pipe."""
    return stat.S_ISREG(mode(path))


def is_special(path: str | Path) -> bool:
    """Whether it is there, and neither an ordinary file nor a folder: a device or a pipe."""
    return mode(path) != 0 and not is_folder(path) and not is_file(path)


def open_file(path: str) -> int | None:
    """The number of the open file that a name such as `/dev/stdout` or `/dev/fd/3` stands for, or None."""
    numbered = _OPEN_FILE.fullmatch({"/dev/stdout": "/dev/fd/1", "/dev/stderr": "/dev/fd/2"}.get(path, path))
    return int(numbered[1]) if numbered else None


def permit_like(path: Path, other: Path) -> None:
    """Let a file be open to those that another is open to, where there is one, and be written."""
    permissions = mode(other)
    if permissions:
        with suppress(PermissionError):  # a file system that keeps none
            path.chmod(stat.S_IMODE(permissions) | stat.S_IWUSR)
