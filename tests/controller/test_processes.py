"""The controller and an agent as programs: what they print, how they end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import pathlib
import signal
import socket
import sys
from collections.abc import AsyncIterator

import pytest

from corral_lab.control_plane import plane

from .simulated_cloud import CONTROLLER, PATIENCE

pytestmark = pytest.mark.api

HOST = "no-such-host"


def controller(control_plane: plane.ControlPlane) -> tuple[str, ...]:
    return "controller", "run", "--kubeconfig", str(control_plane.kubeconfig(CONTROLLER))


def agent(control_plane: plane.ControlPlane, state: pathlib.Path) -> tuple[str, ...]:
    kubeconfig = str(control_plane.kubeconfig(f"corral:agent:{HOST}"))
    return "agent", "run", "--host", HOST, "--kubeconfig", kubeconfig, "--state", str(state)


@contextlib.asynccontextmanager
async def running(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """The command `corral`, which is gone afterwards."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "corral", *arguments, stderr=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def lines_until(process: asyncio.subprocess.Process, word: str) -> list[str]:
    """What it logs, until a line has this word."""
    assert process.stderr is not None
    lines: list[str] = []
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE * 2):
            async for line in process.stderr:
                lines.append(line.decode())
                if word in lines[-1]:
                    return lines
    pytest.fail(f"it never said {word!r}: {''.join(lines)}")


async def rest(process: asyncio.subprocess.Process) -> list[str]:
    assert process.stderr is not None
    async with asyncio.timeout(PATIENCE * 3):
        return (await process.stderr.read()).decode().splitlines()


@pytest.mark.usefixtures("crds", "roles")
async def test_a_signal_ends_the_controller_and_each_line_is_one_event(control_plane: plane.ControlPlane) -> None:
    async with running(*controller(control_plane), "--log-format", "json", "--verbose") as process:
        # Kopf's own word: its watches are there, and with them whatever it does to signals.
        lines = await lines_until(process, "Initial authentication has finished")
        process.send_signal(signal.SIGTERM)
        lines += await rest(process)
        assert await process.wait() == 0
    events = [json.loads(line) for line in lines]
    assert all({"event", "level", "logger", "timestamp"} <= event.keys() for event in events)
    assert {event["logger"].partition(".")[0] for event in events} >= {"corral", "kopf"}


@pytest.mark.usefixtures("crds", "roles")
async def test_a_signal_ends_an_agent_that_waits(control_plane: plane.ControlPlane, tmp_path: pathlib.Path) -> None:
    async with running(*agent(control_plane, tmp_path)) as process:
        (*_, line) = await lines_until(process, "the agent waits and asks again")
        # For people: time, level, event, who says it, and the rest as key=value.
        assert "[warning  ]" in line
        assert "[corral.agent.process]" in line
        assert "why=" in line
        process.send_signal(signal.SIGINT)
        assert "guests run on" in (await rest(process))[-1]
        assert await process.wait() == 0


@pytest.mark.parametrize("which", ["controller", "agent"])
async def test_a_taken_port_is_a_sentence_with_a_remedy(
    control_plane: plane.ControlPlane, tmp_path: pathlib.Path, which: str
) -> None:
    command = controller(control_plane) if which == "controller" else agent(control_plane, tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        async with running(*command, "--metrics", address) as process:
            said = await rest(process)
            assert await process.wait() == 1
    assert said[-2].startswith(f"Metrics can't be served at {address}: ")
    assert said[-1].startswith("Next: give --metrics an address of this machine and a free port")
    assert not any("Traceback" in line for line in said)
