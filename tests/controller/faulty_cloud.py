"""A simulated cloud behind the fault proxy, which looks around every few seconds, so that it heals in seconds."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
from collections.abc import AsyncIterator, Collection

from corral import kube, watching
from corral.controller import world
from corral_lab.control_plane import plane

from . import truth
from .fault_proxy import Asked, Proxy
from .simulated_cloud import CONTROLLER, SimulatedCloud, is_ready, until

HEALED_WITHIN = 90.0
"""Seconds that a test has patience; a few are needed."""

CLIENT_TIMEOUT = 2.0
"""Seconds in which our processes want an answer."""

_LOOK_EVERY = 0.5
"""Seconds between two looks of one test: many look at once, and the cloud needs the time."""

_WATCHES = watching.Settings(server_timeout=3.0, grace=1.0, silence=1.5)
_SWEPT_EVERY = 3.0


def of_controller(asked: Asked) -> bool:
    """Whether the controller asks, and not for the lead."""
    return asked.user == CONTROLLER and "/leases" not in asked.path


def of_agents(asked: Asked) -> bool:
    """Whether an agent asks, and does not only say that it lives."""
    return asked.user != CONTROLLER and "/leases" not in asked.path


async def _connect(kubeconfig: str | None) -> kube.Kube:
    return await kube.Kube.connect(kubeconfig, user_agent="corral-tests", timeout=CLIENT_TIMEOUT)


class FaultyCloud(SimulatedCloud):
    """What a test of faults does with a cloud: each verb ends when what it asked for is so."""

    async def start(self) -> None:
        """Start every process."""
        await self.start_controller(_connect, watches=_WATCHES, sweep_every=_SWEPT_EVERY)
        for metal in self.hosts.values():
            self.start_agent(metal, _connect, watches=_WATCHES, sweep_every=_SWEPT_EVERY)

    async def stop(self) -> None:
        """Stop every process."""
        await self.stop_controller()
        await asyncio.gather(*(self.stop_agent(metal) for metal in self.hosts.values()))

    async def create(self, name: str) -> None:
        """Apply a VirtualMachine, and see it run."""
        await self.vm(name)
        await self.up_and_running(name)

    async def remove(self, name: str) -> None:
        """Delete a VirtualMachine, and see nothing left of it."""
        seen = await self.get(world.VMS, name)
        assert seen is not None
        await self.admin.delete(world.VMS, seen)

        async def left() -> list[str]:
            await asyncio.sleep(_LOOK_EVERY)
            found = [*await self.all(world.INSTANCES), *await self.all(world.ALLOCATIONS)]
            return [obj["metadata"]["name"] for obj in found if obj["spec"]["owner"]["name"] == name]

        await until(left, lambda some: not some, HEALED_WITHIN)

    async def up_and_running(self, name: str, reason: str = "Running") -> None:
        """Wait until it is Ready for this reason."""

        async def look() -> kube.Object | None:
            await asyncio.sleep(_LOOK_EVERY)
            return await self.get(world.VMS, name)

        await until(look, lambda vm: vm is not None and is_ready(vm, reason), HEALED_WITHIN)

    async def is_true(self, running: Collection[str], halted: Collection[str] = ()) -> None:
        """Wait until there are these VirtualMachines, each once, and nothing else."""
        await until(
            lambda: truth.falsehoods(self, running=running, halted=halted), lambda found: not found, HEALED_WITHIN
        )


@contextlib.asynccontextmanager
async def running(
    control_plane: plane.ControlPlane, admin: kube.Kube, folder: pathlib.Path, proxy: Proxy
) -> AsyncIterator[FaultyCloud]:
    """A controller and two hosts behind the proxy."""
    cloud = FaultyCloud(control_plane, admin, folder, proxy.kubeconfig)
    try:
        await cloud.furnish(prefix="10.98.0.0/24")
        await cloud.start_controller()
        for name in ("a", "b"):
            await cloud.add_host(name)
        # Many storms delete more in ten minutes than the guard takes for an intention.
        await cloud.patch(world.CLOUDS, world.CLOUD_KEY.name, {"deletionGuard": {"floor": 10_000}})
        await cloud.stop()
        await cloud.start()
        yield cloud
    finally:
        proxy.rules = []
        proxy.choose = lambda _asked: None
        await cloud.close()
