"""`corral generate`: what stands in the repository and is generated from the code; `--check` says what differs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from corral import reasons
from corral.api import v1alpha1
from corral.crds import generate, write

app = typer.Typer(help="Write what is generated from the code.", no_args_is_help=True)

Check = Annotated[bool, typer.Option("--check", help="Write nothing; exit with 1 where something differs.")]


@app.command()
def crds(
    folder: Annotated[Path, typer.Argument(help="Where the CustomResourceDefinitions stand.")] = Path("crds"),
    check: Check = False,
) -> None:
    """The CustomResourceDefinitions, from the models of the API."""
    definitions = [generate.crd(one.kind, one.spec, one.status, one.description) for one in v1alpha1.RESOURCES]
    _tell(write.write(folder, definitions, check=check), "make crds", check=check)


@app.command(name="reasons")
def reasons_page(
    page: Annotated[Path, typer.Argument(help="The reference page of reasons.")] = Path("docs/reasons.md"),
    check: Check = False,
) -> None:
    """The reference page of reasons, from the catalogue."""
    text = reasons.page()
    differs = not page.exists() or page.read_text() != text
    if differs and not check:
        page.write_text(text)
    _tell([page.name] if differs else [], "make docs", check=check)


def _tell(differing: list[str], remedy: str, *, check: bool) -> None:
    for name in differing:
        typer.echo(f"{name} differs from the code" if check else f"{name} written")
    if check and differing:
        typer.echo(f"Next: {remedy}, and commit what it writes", err=True)
        raise typer.Exit(1)
