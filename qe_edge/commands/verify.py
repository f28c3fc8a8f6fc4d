"""`qe-edge verify`: whether a bundle from a stranger is whole and holds nothing that could hurt the machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from qe_edge.bundle import EMBEDDED_BUNDLE, verify_bundle


def verify(
    bundle: Annotated[
        Path | None, typer.Argument(metavar="BUNDLE", help="Bundle folder; the embedded one if not given.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The checks and what they found, as JSON.")] = False,
) -> None:
    """Check that a bundle is whole and safe to load, without loading it.

    The same checks are made whenever a bundle is opened. Prints a line for each; exit code 6 and one line on standard
    error if one fails.
    """
    opened, checks = verify_bundle(bundle or EMBEDDED_BUNDLE)
    name = f"{opened.spec.name}@{opened.digest}"
    if as_json:
        content = {"folder": str(opened.folder), "bundle": name, "checks": [check._asdict() for check in checks]}
        typer.echo(json.dumps(content, ensure_ascii=False, indent=2))
        return
    width = max(len(check.subject) for check in checks)
    typer.echo("\n".join([name, *(f"ok  {check.subject:<{width}}  {check.found}" for check in checks)]))
