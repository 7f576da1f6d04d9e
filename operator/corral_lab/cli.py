"""`corral lab`: bring the lab up, show what it does, look at it, take it down. `corral` finds `app` by its entry point.

A thin composition: each command puts the library's parts together, and says in a sentence what went wrong.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import rich.console
import rich.table
import typer

from corral_lab import demo as tour
from corral_lab import errors, paths, progress
from corral_lab.guest import build as guest_build
from corral_lab.guest import debian
from corral_lab.lab import Lab
from corral_lab.options import Options
from corral_lab.programs import build

app = typer.Typer(help="The lab: a whole cloud on this machine.", no_args_is_help=True)

_HERE = Path(".lab")
_DEFAULT = Options()

Folder = Annotated[Path, typer.Option("--dir", envvar="CORRAL_LAB", help="The lab's folder; two labs are two folders.")]
Hosts = Annotated[int, typer.Option(min=1, max=16, help="How many hosts.")]
Management = Annotated[
    str, typer.Option(help="IPv4 prefix between this machine and the hosts; the API server has its first address.")
]
Guests = Annotated[str, typer.Option(help="IPv4 prefix of the guests, reached from this machine.")]
Loopbacks = Annotated[
    str, typer.Option(help="IPv4 prefix of what the fabric is made of: its first address is this machine's.")
]
Guests6 = Annotated[
    str | None, typer.Option(help="IPv6 prefix of the guests; when not given, fd00:10:77::/64 for 10.77.0.0/24.")
]
Loopbacks6 = Annotated[str | None, typer.Option(help="IPv6 prefix of the loopbacks, likewise.")]


@app.command()
def up(
    folder: Folder = _HERE,
    hosts: Hosts = _DEFAULT.hosts,
    management: Management = str(_DEFAULT.management),
    guests: Guests = str(_DEFAULT.guests),
    loopbacks: Loopbacks = str(_DEFAULT.loopbacks),
    guests6: Guests6 = None,
    loopbacks6: Loopbacks6 = None,
) -> None:
    """Bring the lab up; on a lab that is up already, mend what is missing."""
    with _sentences():
        steps = progress.Steps(rich.console.Console())
        lab = _lab(folder)
        lab.up(_options(hosts, management, guests, loopbacks, guests6, loopbacks6), steps)
        steps.say(f"The lab is up. Next: source {_short(lab.folder.env)}, then kubectl get hosts.corral.dev")


@app.command()
def prepare() -> None:
    """Build what labs need into the cache, once a machine: the control plane's programs, and the guest images."""
    with _sentences():
        steps = progress.Steps(rich.console.Console())
        cache = paths.Cache.find(os.environ)
        build.provide(cache, os.environ, steps)
        guest_build.provide(cache, steps)
        if debian.can_be_built():
            debian.provide(cache, steps)


@app.command()
def image(
    name: Annotated[str, typer.Argument(help=f"The image's name: {debian.NAME}.")],
    folder: Folder = _HERE,
) -> None:
    """Offer one more ClusterImage in a lab that is up; the first time it is built, in a minute and a half."""
    with _sentences():
        if name != debian.NAME:
            raise errors.LabError(
                f"There is no recipe of an image {name!r}.", next_step=f"Name one that there is: {debian.NAME}."
            )
        steps = progress.Steps(rich.console.Console())
        _lab(folder).add_debian(steps)
        steps.say(f"The ClusterImage {name} is there. Next: kubectl apply -f examples/vm-debian.yaml")


@app.command()
def demo(
    folder: Folder = _HERE,
    hosts: Annotated[
        int | None, typer.Option(min=1, max=16, help=f"How many hosts; {tour.HOSTS}, or as many as the lab has.")
    ] = None,
    management: Management = str(_DEFAULT.management),
    guests: Guests = str(_DEFAULT.guests),
    loopbacks: Loopbacks = str(_DEFAULT.loopbacks),
    guests6: Guests6 = None,
    loopbacks6: Loopbacks6 = None,
) -> None:
    """Bring the lab up, apply the examples, and show what Corral does with them."""
    with _sentences():
        console = rich.console.Console()
        lab = _lab(folder)
        there = lab.options()
        count = hosts or (tour.HOSTS if there is None else there.hosts)
        options = _options(count, management, guests, loopbacks, guests6, loopbacks6)
        api = lab.up(options, progress.Steps(console))
        tour.show(
            lab, api, progress.Steps(console), tour.Examples(Path.cwd() / "examples", (options.guests, options.guests6))
        )


@app.command()
def restart(folder: Folder = _HERE) -> None:
    """Start the controller and the agents anew, as after a change of their code. Guests run on."""
    with _sentences():
        _lab(folder).restart()


@app.command()
def reboot(
    name: Annotated[str, typer.Argument(help="The name of a host, such as h1, or of a spine, such as s1.")],
    folder: Folder = _HERE,
) -> None:
    """Cut a host's power and boot it again: its guests must come back by themselves. Or a spine's: nobody notices."""
    with _sentences():
        lab = _lab(folder)
        hosts, spines = ([one.name for one in each] for each in (lab.hosts(), lab.spines()))
        if name in hosts:
            lab.reboot(hosts.index(name) + 1)
        elif name in spines:
            lab.reboot_spine(spines.index(name) + 1)
        else:
            known = ", ".join((*hosts, *spines))
            raise errors.LabError(
                f"The lab in {_short(lab.folder.root)} has no host or spine {name!r}.",
                next_step=f"Name one of {known}." if known else "Bring a lab up: `corral lab up`.",
            )


@app.command()
def backup(
    to: Annotated[Path, typer.Argument(help="A folder that is not there yet.")],
    folder: Folder = _HERE,
) -> None:
    """Back up everything that the lab's API holds; the API is away for a moment, and guests run on."""
    with _sentences():
        _lab(folder).control_plane().backup(to.absolute(), progress.Steps(rich.console.Console()))


@app.command()
def restore(
    backup: Annotated[Path, typer.Argument(help="The folder that `corral lab backup` wrote.", metavar="FROM")],
    folder: Folder = _HERE,
) -> None:
    """Take the lab's API back to a backup, as after a disaster: what was written since is lost, and guests run on."""
    with _sentences():
        _lab(folder).control_plane().restore(backup.absolute(), progress.Steps(rich.console.Console()))


@app.command()
def down(
    folder: Folder = _HERE,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the lab's data and keys for the next `up`.")] = False,
) -> None:
    """Take the lab down: no process is left, and no data."""
    with _sentences():
        lab = _lab(folder)
        lab.down(keep=keep)
        progress.Steps(rich.console.Console()).say(f"Nothing of the lab in {_short(lab.folder.root)} runs any more.")


@app.command()
def status(folder: Folder = _HERE) -> None:
    """Show what runs, and whether it is ready; the exit code is 1 where something is not."""
    with _sentences():
        seen = tuple(_lab(folder).status())
    table = rich.table.Table("PROCESS", "PID", "READY", rich.table.Column("MEMORY", justify="right"), box=None)
    for one in seen:
        pid = "-" if one.pid is None else str(one.pid)
        table.add_row(one.name, pid, one.missing or "yes", f"{one.memory / 1024**2:.0f} MiB")
    rich.console.Console().print(table)
    if not all(one.ready for one in seen):
        raise typer.Exit(1)


def _lab(folder: Path) -> Lab:
    return Lab(paths.LabDir.at(folder), paths.Cache.find(os.environ))


def _options(
    hosts: int, management: str, guests: str, loopbacks: str, guests6: str | None, loopbacks6: str | None
) -> Options:
    return Options(
        hosts,
        _prefix("--management", management),
        _prefix("--guests", guests),
        _prefix("--loopbacks", loopbacks),
        None if guests6 is None else _prefix6("--guests6", guests6),
        None if loopbacks6 is None else _prefix6("--loopbacks6", loopbacks6),
    )


def _prefix(option: str, text: str) -> ipaddress.IPv4Network:
    try:
        return ipaddress.IPv4Network(text)
    except ValueError as error:
        raise errors.LabError(
            f"{option} {text} is not an IPv4 prefix: {error}.", next_step=f"Give one such as {option} 10.99.0.0/24."
        ) from error


def _prefix6(option: str, text: str) -> ipaddress.IPv6Network:
    try:
        return ipaddress.IPv6Network(text)
    except ValueError as error:
        raise errors.LabError(
            f"{option} {text} is not an IPv6 prefix: {error}.", next_step=f"Give one such as {option} fd00:99::/64."
        ) from error


@contextlib.contextmanager
def _sentences() -> Iterator[None]:
    """Turn an error into its sentence, its next step and exit code 1; and SIGTERM into an end that cleans up."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except errors.LabError as error:
        console = rich.console.Console(stderr=True)
        console.print(error.sentence, markup=False, highlight=False, soft_wrap=True)
        console.print(f"Next: {error.next_step}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error
    finally:
        signal.signal(signal.SIGTERM, before)


def _short(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
