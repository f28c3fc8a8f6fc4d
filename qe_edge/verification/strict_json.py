"""JSON that two parsers cannot read differently, and that is not made to exhaust them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NoReturn

from qe_edge.verification.refusal import refusal, shown


def parse_json(raw: bytes, path: Path, containers: int) -> Any:
    """Parse UTF-8 JSON with at most `containers` lists and objects. `path` is named in errors.

    Raises BundleError for anything else, also for a name that is written twice in one object (parsers differ in which
    one counts), for NaN and numbers beyond float64, and for nesting that is too deep for the parser.
    """
    # Counted before parsing: a few bytes of text become a hundred of memory. Brackets in texts are counted too.
    if raw.count(b"{") + raw.count(b"[") > containers:
        raise refusal(path, f"more than {containers} lists and objects")
    try:
        return json.loads(
            raw.decode("utf-8"), object_pairs_hook=_each_name_once, parse_constant=_no_number, parse_float=_finite
        )
    except RecursionError:
        raise refusal(path, "nested too deeply") from None
    except ValueError as error:
        raise refusal(path, f"not valid JSON ({error})") from None


def _each_name_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"name {shown(twice)} is written twice")
    return content


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{shown(text)} is more than a number can be")
    return value


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number")
