"""The command line as a whole: our own commands, and those that other packages bring."""

from __future__ import annotations

import importlib.metadata
from typing import Annotated

import typer

import corral
from corral.cli import generate, processes

_GROUP = "corral.cli"


def make() -> typer.Typer:
    """The command with every group that is installed."""
    app = typer.Typer(
        name="corral",
        help="An IaaS declared in Kubernetes: apply VirtualMachines, and libvirt hosts run them.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )
    app.callback()(_options)
    app.add_typer(processes.controller, name="controller")
    app.add_typer(processes.agent, name="agent")
    app.add_typer(generate.app, name="generate")
    for entry in sorted(importlib.metadata.entry_points(group=_GROUP), key=lambda entry: entry.name):
        app.add_typer(entry.load(), name=entry.name)
    return app


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(corral.version())
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and end.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """What stands before the command's name."""
