"""Plain files of a bounded size: links, pipes and devices in a bundle are refused before they are opened."""

from __future__ import annotations

import stat
from pathlib import Path

from qe_edge.verification.refusal import refusal

MIB = 1 << 20


def check_plain(path: Path) -> None:
    """Raise BundleError unless there is a plain file at `path` itself: a link is not followed."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        raise refusal(path, "missing or not a plain file") from None
    if not stat.S_ISREG(mode):
        raise refusal(path, "missing or not a plain file")


def read_bounded(path: Path, limit: int) -> bytes:
    """The bytes of a plain file of at most `limit` bytes. Raises BundleError for any other."""
    check_plain(path)
    with path.open("rb") as stream:
        content = stream.read(limit + 1)
    if len(content) > limit:
        raise refusal(path, f"larger than {limit // MIB} MiB")
    return content
