"""Packages that a plain install leaves out, asked for before they are imported."""

from __future__ import annotations

from importlib.util import find_spec

from qe_edge.errors import MissingExtraError


def require(extra: str, *modules: str) -> None:
    """Raise MissingExtraError, saying what to install, unless all top-level modules of an extra are there.

    Nothing is imported.
    """
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise MissingExtraError(
            f"this command needs {', '.join(missing)}, which a plain install leaves out; "
            f"install with: pip install 'qe-edge[{extra}]'"
        )
