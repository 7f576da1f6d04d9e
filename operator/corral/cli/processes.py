"""`corral controller run` and `corral agent run`: the two long-running processes."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from corral import deadlines, kube, scrape
from corral.agent import process as agent_process
from corral.agent import rooms
from corral.cli import logs
from corral.controller import leader
from corral.controller import process as controller_process

controller = typer.Typer(help="The controller: one for the whole cloud.", no_args_is_help=True)
agent = typer.Typer(help="The agent: one on every host.", no_args_is_help=True)

Kubeconfig = Annotated[
    Path | None,
    typer.Option(envvar="KUBECONFIG", help="How to reach the API server; without, as a Pod inside its cluster."),
]
Liveness = Annotated[
    str | None, typer.Option(help="Where the liveness probe answers, such as http://127.0.0.1:8080/healthz.")
]
Metrics = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS:PORT", help="Where /metrics is served, such as 127.0.0.1:9180; without, nowhere."),
]
LeaseLasts = Annotated[
    float, typer.Option("--lease", min=3.0, help="Seconds of silence after which another controller takes over.")
]
LookEvery = Annotated[float, typer.Option(min=0.0, help="Seconds between two looks at every guest; 0 for none.")]
Events = Annotated[
    bool, typer.Option(help="Heed what the host tells of by itself; without, only looking finds what somebody changed.")
]
LogFormat = Annotated[logs.Format, typer.Option(help="json for collectors, console for people.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Log every step.")]


@controller.command("run")
def run_controller(
    kubeconfig: Kubeconfig = None,
    liveness: Liveness = None,
    metrics: Metrics = None,
    lease: LeaseLasts = deadlines.LEADER_LEASE,
    log_format: LogFormat = logs.Format.CONSOLE,
    verbose: Verbose = False,
) -> None:
    """Run the controller until SIGTERM. Of several, one acts, and the others stand by."""
    logs.configure(log_format, verbose=verbose)
    settings = controller_process.Settings(
        kubeconfig=None if kubeconfig is None else str(kubeconfig),
        liveness=liveness,
        metrics=metrics,
        lease=leader.Times.of(lease),
    )
    _run(lambda stop: controller_process.run(settings, stop))


@agent.command("run")
def run_agent(  # noqa: PLR0913, PLR0917 - a command's options are its parameters
    host: Annotated[str, typer.Option(help="The name of this machine's Host object.")],
    kubeconfig: Kubeconfig = None,
    state: Annotated[Path, typer.Option(help="Where disks, images and seeds are kept.")] = Path("/var/lib/corral"),
    hypervisor: Annotated[str, typer.Option(help="The hypervisor's URI.")] = "qemu:///system",
    liveness: Liveness = None,
    metrics: Metrics = None,
    look_every: LookEvery = 30.0,
    events: Events = True,
    log_format: LogFormat = logs.Format.CONSOLE,
    verbose: Verbose = False,
) -> None:
    """Run the agent of this machine until SIGTERM. Stopping it touches no guest."""
    logs.configure(log_format, verbose=verbose)
    settings = agent_process.Settings(
        host=host,
        kubeconfig=None if kubeconfig is None else str(kubeconfig),
        state_dir=str(state),
        hypervisor_uri=hypervisor,
        liveness=liveness,
        metrics=metrics,
        look_every=look_every,
        events=events,
    )
    _run(lambda stop: agent_process.run(settings, stop))


def _run(process: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    async def until_stopped() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            # Not the loop's own handler: that one can't be given back to us by who takes it away for a while.
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop.set))
        await process(stop)

    try:
        asyncio.run(until_stopped())
    except kube.NotConfigured as error:
        _fail(str(error), "give the API server's kubeconfig with --kubeconfig, or in KUBECONFIG")
    except scrape.NotServed as error:
        _fail(str(error), "give --metrics an address of this machine and a free port, such as 127.0.0.1:9181")
    except rooms.NoSuchDriver as error:
        _fail(str(error), "name one of these in spec.hypervisor.driver of the Host, or install the driver's package")


def _fail(sentence: str, remedy: str) -> NoReturn:
    typer.echo(f"{sentence[:1].upper()}{sentence[1:]}.\nNext: {remedy}.", err=True)
    raise typer.Exit(1)
