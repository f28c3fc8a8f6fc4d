"""A recipe from TOML and back. Unknown keys and values of the wrong kind are refused by name."""

from __future__ import annotations

import difflib
import math
import tomllib
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from qe_edge.errors import InputError
from qe_edge_train.recipe.options import Recipe


def load_recipe(path: Path) -> Recipe:
    """Read a recipe file. Raises InputError with file, key and remedy."""
    return parse_recipe(read_toml(path), str(path))


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a recipe file. Raises InputError when it cannot be read or is not TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))  # editors on Windows may begin a file with a BOM
    except FileNotFoundError:
        raise InputError(f"{path}: no such recipe file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a folder; give the recipe file itself") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid TOML: {error}") from None


def parse_recipe(content: dict[str, Any], origin: str) -> Recipe:
    """Build a recipe from parsed TOML; `origin` names the file in messages."""
    try:
        recipe: Recipe = _build(Recipe, content, "")
    except InputError as error:
        raise InputError(f"{origin}: {error}") from None
    return recipe


def recipe_table(recipe: Recipe) -> dict[str, Any]:
    """The resolved recipe as a TOML table; `parse_recipe` reads it back."""
    table: dict[str, Any] = _plain(asdict(recipe))
    return table


def _plain(value: Any) -> Any:
    """Tuples as lists, and no keys without a value: TOML has neither."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, tuple | list):
        return [_plain(inner) for inner in value]
    return value


def _build(kind: Any, table: Any, where: str) -> Any:
    if not isinstance(table, dict):
        raise InputError(f"[{where}] must be a table of keys, not {table!r}")
    known = {item.name for item in fields(kind)}
    hints = get_type_hints(kind)
    values: dict[str, Any] = {}
    for key, value in table.items():
        label = f"{where}.{key}" if where else key
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)[0]
            raise InputError(f"unknown key `{label}`; nearest valid key: `{near}` (of {', '.join(sorted(known))})")
        values[key] = _value(hints[key], value, label)
    return kind(**values)


def _value(kind: Any, value: Any, label: str) -> Any:
    inner = get_args(kind)
    if NoneType in inner:
        kind = next(one for one in inner if one is not NoneType)
        inner = get_args(kind)
    if is_dataclass(kind):
        return _build(kind, value, label)
    if get_origin(kind) is tuple:
        if not isinstance(value, list):
            form = f"tables: [[{label}]]" if is_dataclass(inner[0]) else f"values: {label} = [...]"
            raise InputError(f"`{label}` must be an array of {form}")
        return tuple(_value(inner[0], item, label) for item in value)
    if get_origin(kind) is Literal:
        if value not in inner:
            raise InputError(f"`{label}` = {value!r}: must be one of {', '.join(map(repr, inner))}")
        return value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"`{label}` = {value}: a finite number is expected")
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise InputError(f"`{label}` = {value!r}: a value of type {kind.__name__} is expected")
    return value
