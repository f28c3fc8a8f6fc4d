"""Bounds of what `bundle.json` may say, for values whose types are right."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import Any

from qe_edge.verification.files import MIB
from qe_edge.verification.refusal import refusal, shown

RECORD_BYTES = 1 * MIB
RECORD_CONTAINERS = 10_000
"""most lists and objects in `bundle.json`"""
DEPTH = 8
"""most lists and objects inside each other; the figures of an export reach 4"""
LONGEST_TEXT = 20_000
"""most characters of a text; the longest is the prompt"""
BOUNDS = MappingProxyType(
    {
        "blocks_kept": (1, 1024),
        "blocks_total": (1, 1024),
        "full_blocks": (0, 1024),
        "kv_heads": (1, 1024),
        "head_dim": (1, 4096),
        "token_limit": (1, 1 << 17),
        "bos": (0, (1 << 31) - 1),
    }
)
"""By field, the least and the largest value."""


def check_record(content: dict[str, Any], path: Path) -> None:
    """Raise BundleError for a number out of bounds, a text that is too long, or one with control characters.

    Texts of the record are printed: a control character could rewrite what the terminal shows. The prompt alone may
    have line breaks and tabs.
    """
    _check_texts(content, path, DEPTH)
    for name, (least, most) in BOUNDS.items():
        value = content[name]
        if value is not None and not least <= value <= most:
            raise refusal(path, f"`{name}` is {shown(value)}, which is not from {least} to {most}")
    for tap in content["taps"]:
        if not 1 <= tap <= content["blocks_total"] + 1:
            raise refusal(path, f"`taps` has {shown(tap)}, which is not a layer of {content['blocks_total']} blocks")


def _check_texts(value: Any, path: Path, depth: int, name: str = "") -> None:
    """Check all texts in a JSON value, the names in its objects included. name: the field it belongs to."""
    if isinstance(value, dict | list) and depth == 0:
        raise refusal(path, f"`{name}` has more than {DEPTH} lists and objects inside each other")
    if isinstance(value, dict):
        for key, inner in value.items():
            _check_texts(key, path, depth, name)
            _check_texts(inner, path, depth - 1, name or key)
    elif isinstance(value, list):
        for inner in value:
            _check_texts(inner, path, depth - 1, name)
    elif isinstance(value, str):
        if len(value) > LONGEST_TEXT:
            raise refusal(path, f"`{name}` has a text of {len(value)} characters, more than {LONGEST_TEXT}")
        line = value.replace("\n", " ").replace("\t", " ") if name == "prompt" else value
        if not line.isprintable():
            raise refusal(path, f"`{name}` has control characters: {shown(value)}")
