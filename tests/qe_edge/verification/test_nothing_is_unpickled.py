"""No module of the runtime can turn a file into code."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

FORBIDDEN_MODULES = {
    "pickle",
    "cPickle",
    "_pickle",
    "dill",
    "cloudpickle",
    "joblib",
    "marshal",
    "shelve",
    "torch",
    "yaml",
}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}


def findings(source: str) -> list[str]:
    """What in a module's source could run code from a file."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.partition(".")[0] in FORBIDDEN_MODULES]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in FORBIDDEN_MODULES:
            found.append(str(node.module))
        elif isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else None
            found += [name] if name in FORBIDDEN_CALLS else []
            found += [keyword.arg for keyword in node.keywords if keyword.arg == "allow_pickle"]
    return found


def test_the_runtime_imports_and_calls_nothing_of_the_kind(repository: Path) -> None:
    modules = sorted((repository / "qe_edge").rglob("*.py"))

    assert len(modules) > 50
    found = {str(module): findings(module.read_text(encoding="utf-8")) for module in modules}
    assert {module: names for module, names in found.items() if names} == {}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import pickle", ["pickle"]),
        ("from torch.serialization import load", ["torch.serialization"]),
        ("np.load(path, allow_pickle=True)", ["allow_pickle"]),
        ("def f():\n    exec(open(p).read())", ["exec"]),
        ("import re; re.compile('a'); np.load(path)", []),
    ],
)
def test_each_way_would_be_found(source: str, expected: list[str]) -> None:
    assert findings(source) == expected
