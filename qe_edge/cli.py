"""The command line: `qe-edge COMMAND`. Commands import what they need only when they run."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points
from typing import Annotated

import typer

from qe_edge import __version__
from qe_edge.commands.bench import bench
from qe_edge.commands.cache import cache
from qe_edge.commands.ending import ended_in_order, occupy_closed_streams, output_reported
from qe_edge.commands.eval import evaluate
from qe_edge.commands.inspect import inspect
from qe_edge.commands.score import score
from qe_edge.commands.verify import verify
from qe_edge.errors import QeEdgeError, one_line

COMMANDS_GROUP = "qe_edge.commands"
"""entry points that add commands: each is a function `register(app: typer.Typer) -> None` that is light to import"""
EXIT_INTERRUPTED = 130


def build() -> typer.Typer:
    """The application with the commands of the light install and of whatever else is installed."""
    app = typer.Typer(
        name="qe-edge",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    app.command()(score)
    app.command("eval")(evaluate)
    app.command()(inspect)
    app.command()(verify)
    app.command()(bench)
    app.add_typer(cache, name="cache")
    for entry in entry_points(group=COMMANDS_GROUP):
        try:
            register = entry.load()
        except ImportError as error:
            # A broken extension must not take the other commands with it.
            print(f"qe-edge: command {entry.name!r} is not available: {error}", file=sys.stderr)
        else:
            register(app)
    return app


def main(arguments: list[str] | None = None) -> int:
    """Run a command line (default: this process's) and return its exit code (docs/scoring.md).

    A user's mistake is one line on standard error, never a traceback.
    """
    occupy_closed_streams()
    try:
        with output_reported(), ended_in_order():
            build()(arguments, prog_name="qe-edge")
    except QeEdgeError as error:
        print(f"qe-edge: error: {one_line(str(error))}", file=sys.stderr)
        return error.exit_code
    except SystemExit as done:
        # How typer ends every run; an interrupt is among them, and it says nothing itself.
        if done.code == EXIT_INTERRUPTED:
            print("qe-edge: interrupted", file=sys.stderr)
        return done.code if isinstance(done.code, int) else 0
    return 0


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"qe-edge {__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Translation quality estimation on small machines, offline."""
