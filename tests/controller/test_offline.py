"""The agent while the API server is away: what it does by what it kept, and what it makes of the world afterwards."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from corral.agent.host import HOST_STATES
from corral.agent.instance import INSTANCES
from corral_drivers.hypervisor import model as hypervisor
from corral_lab.control_plane import plane

from . import gate as gates
from . import test_agent
from .test_agent import Rig, soon

pytestmark = pytest.mark.api

rig = test_agent.rig


@pytest_asyncio.fixture
async def gate(rig: Rig, control_plane: plane.ControlPlane) -> AsyncIterator[gates.Gate]:
    """The only way of the rig's agent to the API server."""
    async with gates.before(control_plane.url) as made:
        kubeconfig = made.through(control_plane.kubeconfig(rig.user))
        rig.settings = dataclasses.replace(rig.settings, kubeconfig=str(kubeconfig))
        yield made


def reboot(rig: Rig) -> None:
    """What a power cut leaves of a host: disks, seeds and definitions."""
    for uid, guest in list(rig.host.machine.guests.items()):
        if guest.state.is_active:
            rig.host.machine.end(uid)
    for name in list(rig.host.links.interfaces):
        rig.host.links.drop(name)


def runs(rig: Rig, owner: str) -> bool:
    return rig.host.machine.guests[owner].state is hypervisor.State.RUNNING


async def test_after_a_reboot_without_api_server_guests_come_back_that_may(rig: Rig, gate: gates.Gate) -> None:
    async with rig.agent():
        may = await rig.create("may", startWithoutAPI=True)
        must_wait = await rig.create("must-wait")
        await rig.until("Running", "may")
        await rig.until("Running", "must-wait")
    await gate.close()
    reboot(rig)
    async with rig.agent():
        begun = time.monotonic()
        await soon(lambda: runs(rig, may))
        print(f"started without API server after {time.monotonic() - begun:.1f} s")  # noqa: T201 - a figure
        pid = rig.host.machine.guests[may].pid
        await asyncio.sleep(1.0)
        assert not runs(rig, must_wait)
        writes = rig.writes()
        await gate.open()
        await soon(lambda: runs(rig, must_wait))
        await rig.until("Running", "may")
        await rig.until("Running", "must-wait")
        state = await rig.wait(HOST_STATES, rig.name, lambda obj: "conditions" in (obj or {})["status"])
        assert rig.host.machine.guests[may].pid == pid
        assert rig.writes() == writes, "all was as it had been told before"
        assert state is not None
        assert "orphans" not in state["status"] or state["status"]["orphans"] == []


async def test_what_was_deleted_meanwhile_runs_on_as_an_orphan_and_is_not_started_again(
    rig: Rig, gate: gates.Gate
) -> None:
    async with rig.agent():
        owner = await rig.create(startWithoutAPI=True)
        seen = await rig.until("Running")
    await gate.close()
    await rig.api.patch(INSTANCES, seen, {"metadata": {"finalizers": []}})
    await rig.api.delete(INSTANCES, seen)
    reboot(rig)
    async with rig.agent():
        await soon(lambda: runs(rig, owner))
        await gate.open()
        state = await rig.wait(HOST_STATES, rig.name, lambda obj: bool((obj or {})["status"].get("orphans")))
        assert state is not None
        assert [one["uid"] for one in state["status"]["orphans"]] == [owner]
        assert runs(rig, owner)
        await gate.close()
    reboot(rig)
    async with rig.agent():
        await asyncio.sleep(1.0)
        assert not runs(rig, owner)


async def test_what_was_halted_meanwhile_is_halted_once_that_is_known(rig: Rig, gate: gates.Gate) -> None:
    async with rig.agent():
        owner = await rig.create(startWithoutAPI=True)
        seen = await rig.until("Running")
    await gate.close()
    await rig.api.patch(INSTANCES, seen, {"spec": {"runStrategy": "Halted"}})
    async with rig.agent():
        # It goes by what it knows: also what is changed behind its back is put back.
        rig.host.machine.end(owner)
        await soon(lambda: runs(rig, owner))
        await gate.open()
        await rig.until("Halted")
        assert not runs(rig, owner)


async def test_an_agent_that_loses_its_api_server_keeps_its_guests_and_tells_later(rig: Rig, gate: gates.Gate) -> None:
    async with rig.agent():
        owner = await rig.create()
        await rig.until("Running")
        await gate.close()
        for _ in range(2):
            rig.host.machine.end(owner)
            await soon(lambda: runs(rig, owner))
        seen = await rig.get()
        assert seen is not None
        await rig.api.patch(INSTANCES, seen, {"spec": {"runStrategy": "Halted"}})
        await gate.open()
        await rig.until("Halted")


async def test_a_host_that_was_never_told_what_it_is_waits(rig: Rig, gate: gates.Gate) -> None:
    await gate.close()
    async with rig.agent() as task:
        await asyncio.sleep(0.5)
        assert not task.done()
        await gate.open()
        await rig.create()
        await rig.until("Running")
