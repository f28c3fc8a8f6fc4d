"""`qe-edge cache`: what a score cache holds, and how to empty it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qe_edge.cache import cache_info, clear_cache

cache = typer.Typer(no_args_is_help=True, help="Look at, or empty, a file that qe-edge score --cache wrote.")

CacheFile = Annotated[Path, typer.Argument(metavar="FILE", help="File that was given to --cache.")]


@cache.command()
def info(file: CacheFile) -> None:
    """Say how many scores a cache holds, by bundle and device, and its size."""
    found = cache_info(file)
    for scorer, count in found.scores.items():
        typer.echo(f"{scorer}: {count} scores")
    typer.echo(f"{sum(found.scores.values())} scores, {found.size / (1 << 20):.1f} MiB")


@cache.command()
def clear(file: CacheFile) -> None:
    """Remove all scores from a cache."""
    typer.echo(f"{clear_cache(file)} scores removed")
