"""`corral controller run` and `corral agent run`: the two long-running processes."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from corral import kube
from corral.agent import process as agent_process
from corral.agent import rooms
from corral.cli import logs
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
LogFormat = Annotated[logs.Format, typer.Option(help="json for collectors, console for people.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Log every step.")]


@controller.command("run")
def run_controller(
    kubeconfig: Kubeconfig = None,
    liveness: Liveness = None,
    log_format: LogFormat = logs.Format.CONSOLE,
    verbose: Verbose = False,
) -> None:
    """Run the controller until SIGTERM."""
    logs.configure(log_format, verbose=verbose)
    settings = controller_process.Settings(
        kubeconfig=None if kubeconfig is None else str(kubeconfig), liveness=liveness
    )
    _run(lambda stop: controller_process.run(settings, stop))


@agent.command("run")
def run_agent(
    host: Annotated[str, typer.Option(help="The name of this machine's Host object.")],
    kubeconfig: Kubeconfig = None,
    state: Annotated[Path, typer.Option(help="Where disks, images and seeds are kept.")] = Path("/var/lib/corral"),
    hypervisor: Annotated[str, typer.Option(help="The hypervisor's URI.")] = "qemu:///system",
    liveness: Liveness = None,
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
    )
    _run(lambda stop: agent_process.run(settings, stop))


def _run(process: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    async def until_stopped() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await process(stop)

    try:
        asyncio.run(until_stopped())
    except kube.NotConfigured as error:
        _fail(str(error), "give the API server's kubeconfig with --kubeconfig, or in KUBECONFIG")
    except rooms.NoSuchDriver as error:
        _fail(str(error), "name one of these in spec.hypervisor.driver of the Host, or install the driver's package")


def _fail(sentence: str, remedy: str) -> NoReturn:
    typer.echo(f"{sentence[:1].upper()}{sentence[1:]}.\nNext: {remedy}.", err=True)
    raise typer.Exit(1)
