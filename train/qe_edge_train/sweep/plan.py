"""From a sweep file to the trainings it asks for: a grid of values, named variants, or both.

A sweep file is a recipe with a table [sweep] besides:

    [sweep.grid]                    every combination of these values
    "head.taps" = [[11], [16]]
    "optimiser.seed" = [1, 2, 3]

    [[sweep.variant]]               and each variant with every combination
    name = "task only"
    drop = ["alignment"]
    set = { "adapter.rank" = 8 }
"""

from __future__ import annotations

import copy
import hashlib
import re
from collections import Counter
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from qe_edge.errors import InputError
from qe_edge_train.recipe import Recipe, parse_recipe
from qe_edge_train.recipe.reading import read_toml

SEED = "optimiser.seed"
"""runs that differ in this key only are repetitions of one configuration"""

LONGEST_VALUE = 80
"""bytes of a value in a name"""
LONGEST_NAME = 255
"""bytes that file systems allow in the name of a folder"""

Value = str | int | float | bool | list[Any]


@dataclass(frozen=True)
class PlannedRun:
    """One training of a sweep."""

    name: str
    """folder name, made of what is varied"""
    variant: str
    """name of its variant; empty in a sweep without variants"""
    varied: dict[str, Value]
    """value of every grid key, by dotted recipe key"""
    recipe: Recipe

    @property
    def configuration(self) -> str:
        """What repetitions with other seeds have in common."""
        return run_name(self.variant, {key: value for key, value in self.varied.items() if key != SEED}) or "recipe"


@dataclass(frozen=True)
class _Variant:
    name: str = ""
    changes: dict[str, Any] = field(default_factory=dict)
    drop: tuple[str, ...] = ()


def load_sweep(path: Path) -> list[PlannedRun]:
    """All trainings of a sweep file, every recipe checked: variants in their order, the last grid key changing fastest.

    Raises InputError with file, key and remedy for anything that no run could be made of.
    """
    content = read_toml(path)
    try:
        sweep = _table(content.pop("sweep", None), "[sweep]")
        _known(sweep, {"grid", "variant"}, "[sweep]")
        grid = _grid(sweep.get("grid", {}))
        variants = _variants(sweep.get("variant", []))
        if not grid and not sweep.get("variant"):
            raise InputError("[sweep] is empty: add [sweep.grid] or [[sweep.variant]]")
        for variant in variants:
            _refuse_contradictions(variant, grid)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    runs = []
    for variant in variants:
        for values in product(*grid.values()):
            varied = dict(zip(grid, values, strict=True))
            name = run_name(variant.name, varied) or "recipe"
            table = _resolved(content, variant, varied, f"{path} [{name}]")
            runs.append(PlannedRun(name, variant.name, varied, parse_recipe(table, f"{path} [{name}]")))
    for name, count in Counter(run.name for run in runs).items():
        if len(name.encode()) > LONGEST_NAME:
            raise InputError(
                f"{path}: the folder {name} would have a name of more than {LONGEST_NAME} bytes; "
                "give its variant a shorter name, or set some of these keys in one"
            )
        if count > 1:
            raise InputError(f"{path}: {count} runs would be called {name}; give each value and variant once")
    return runs


def run_name(variant: str, varied: dict[str, Value]) -> str:
    """A folder name such as `task-only_taps-11_seed-2`; keys by their last part where that tells them apart."""
    last = Counter(key.rpartition(".")[2] for key in varied)
    parts = [_as_name(variant)] if variant else []
    for key, value in varied.items():
        short = key.rpartition(".")[2]
        parts.append(f"{_as_name(short if last[short] == 1 else key)}-{_shortened(_said(value))}".strip("-"))
    return "_".join(parts)


def _as_name(text: str) -> str:
    return re.sub(r"[^\w.+-]+", "-", text).strip("-")


def _said(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "+".join(map(str, value)) if isinstance(value, list) else str(value)


def _shortened(value: str) -> str:
    """A value, such as a prompt, as a part of a name: when long, its start and a hash of all of it."""
    name = re.sub(r"[^\w.+-]+", "-", value)
    if len(value.encode()) <= LONGEST_VALUE:
        return name
    digest = hashlib.sha256(value.encode()).hexdigest()[:8]
    start = name.encode()[: LONGEST_VALUE - len(digest) - 1].decode(errors="ignore")
    return f"{start.rstrip('-')}-{digest}"


def _grid(table: Any) -> dict[str, list[Value]]:
    grid = _flat(_table(table, "[sweep.grid]"))
    for key, values in grid.items():
        if not isinstance(values, list) or not values:
            raise InputError(f"[sweep.grid] `{key}` = {values!r}: give a list of values, as [{_example(values)}]")
        for value in values:
            if isinstance(value, dict) or (isinstance(value, list) and any(isinstance(item, dict) for item in value)):
                raise InputError(f"[sweep.grid] `{key}`: tables cannot be varied here; set them in a [[sweep.variant]]")
    return grid


def _example(values: Any) -> str:
    return "1, 2" if values == [] or isinstance(values, dict) else repr(values)


def _variants(tables: Any) -> list[_Variant]:
    """The variants of a sweep; a nameless one that changes nothing if there are none."""
    if not isinstance(tables, list):
        raise InputError("variants are an array of tables: write [[sweep.variant]]")
    variants = []
    for table in tables:
        table = _table(table, "[[sweep.variant]]")
        _known(table, {"name", "set", "drop"}, "[[sweep.variant]]")
        name, drop = table.get("name", ""), table.get("drop", [])
        if not isinstance(name, str) or not re.search(r"\w", name):  # folders are called so, which .. would leave
            raise InputError(f"a [[sweep.variant]] needs a name with a letter or digit, as 'task only', not {name!r}")
        if not isinstance(drop, list) or not all(isinstance(key, str) for key in drop):
            raise InputError(f'variant {name!r}: drop = {drop!r}: give a list of keys, as ["alignment"]')
        variants.append(_Variant(name, _flat(_table(table.get("set", {}), f"set of variant {name!r}")), tuple(drop)))
    return variants or [_Variant()]


def _table(value: Any, label: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{label} must be a table" + (", and there is none" if value is None else f", not {value!r}"))
    return value


def _known(table: dict[str, Any], keys: set[str], label: str) -> None:
    for key in table:
        if key not in keys:
            raise InputError(f"unknown key `{key}` in {label}; valid are {', '.join(sorted(keys))}")


def _flat(table: dict[str, Any], above: str = "") -> dict[str, Any]:
    """Nested tables as dotted keys: head.taps = ... without quotes is a table to TOML."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        label = f"{above}{key}"
        flat |= _flat(value, f"{label}.") if isinstance(value, dict) else {label: value}
    return flat


def _refuse_contradictions(variant: _Variant, grid: dict[str, list[Value]]) -> None:
    for key in grid:
        if key in variant.changes:
            raise InputError(f"variant {variant.name!r} sets `{key}`, which [sweep.grid] varies; keep one of the two")
        for dropped in variant.drop:
            if key == dropped or key.startswith(f"{dropped}."):
                raise InputError(f"variant {variant.name!r} drops `{dropped}`, but [sweep.grid] varies `{key}`")


def _resolved(content: dict[str, Any], variant: _Variant, varied: dict[str, Value], origin: str) -> dict[str, Any]:
    """The recipe's table with the variant's drops, then its changes, then the grid's values."""
    table = copy.deepcopy(content)
    for key in variant.drop:
        holder, last = _holder(table, key, origin)
        if last not in holder:
            raise InputError(f"{origin}: drop: the recipe has no `{key}`")
        del holder[last]
    for key, value in (*variant.changes.items(), *varied.items()):
        holder, last = _holder(table, key, origin)
        holder[last] = copy.deepcopy(value)
    return table


def _holder(table: dict[str, Any], key: str, origin: str) -> tuple[dict[str, Any], str]:
    """The table in which a dotted key lies, made if need be, and the key's last part."""
    *above, last = key.split(".")
    for part in above:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise InputError(f"{origin}: `{key}`: `{part}` is not a table of the recipe")
    return table, last
