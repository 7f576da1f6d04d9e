"""A controller that dies at any of its writes, or loses an answer: the next look finds the rest to do, and no more."""

from __future__ import annotations

import asyncio

import pytest

from corral import kube
from corral.controller import world

from .mortal import Fate, Mortal
from .simulated_cloud import SimulatedCloud, is_ready, until

pytestmark = pytest.mark.api

CREATING = 4
"""Writes of the controller from create to Ready: placement, address, Instance, status."""

DELETING = 2


class _Lives:
    """One life after another, each with its own fate."""

    def __init__(self, cloud: SimulatedCloud, fate: Fate) -> None:
        self._cloud = cloud
        self._fate = fate
        self._api: Mortal | None = None
        self._task: asyncio.Task[None] | None = None

    async def begin(self, at: int) -> None:
        """A controller whose `at`-th write is fatal."""
        await self._cloud.stop_controller()

        async def connect(kubeconfig: str | None) -> kube.Kube:
            self._api = api = await Mortal.connect(kubeconfig, user_agent="corral-controller")
            api.at, api.fate = at, self._fate
            return api

        self._task = await self._cloud.start_controller(connect)
        # What every start writes anyway belongs to no virtual machine: let it be over.
        await until(self._connected, lambda is_so: is_so)

    async def _connected(self) -> bool:
        return self._api is not None

    def is_over(self) -> bool:
        return self._task is not None and self._task.done()

    async def end(self) -> bool:
        """Put a new one in its place; whether fate struck."""
        assert self._api is not None
        struck = self._api.has_struck
        await self._cloud.kill_controller()
        await self._cloud.start_controller()
        return struck


@pytest.mark.parametrize("fate", Fate)
async def test_death_at_any_write_of_the_way_to_ready(cloud: SimulatedCloud, fate: Fate) -> None:
    lives, names = _Lives(cloud, fate), []
    for at in range(1, CREATING + 2):
        await lives.begin(at)
        names.append(f"vm-{at}")
        await cloud.vm(names[-1])

        async def is_there(name: str = names[-1]) -> bool:
            vm = await cloud.get(world.VMS, name)
            return lives.is_over() or (vm is not None and is_ready(vm))

        await until(is_there, lambda is_so: is_so)
        assert await lives.end() == (at <= CREATING)
        await cloud.ready(*names)
    instances, allocations = await cloud.all(world.INSTANCES), await cloud.all(world.ALLOCATIONS)
    assert sorted(one["spec"]["owner"]["name"] for one in instances) == names
    assert sorted(one["spec"]["owner"]["name"] for one in allocations) == names
    assert sum(len(metal.running) for metal in cloud.hosts.values()) == len(names)


@pytest.mark.parametrize("fate", Fate)
async def test_death_at_any_write_of_the_way_to_nothing(cloud: SimulatedCloud, fate: Fate) -> None:
    lives = _Lives(cloud, fate)
    names = [f"vm-{at}" for at in range(1, DELETING + 2)]
    for name in names:
        await cloud.vm(name)
    await cloud.ready(*names)
    for at, name in enumerate(names, start=1):
        await lives.begin(at)
        await cloud.delete(name)

        async def owned(name: str = name) -> list[str]:
            found = [*await cloud.all(world.INSTANCES), *await cloud.all(world.ALLOCATIONS)]
            return [one["metadata"]["name"] for one in found if one["spec"]["owner"]["name"] == name]

        await until(owned, lambda left: lives.is_over() or not left)
        assert await lives.end() == (at <= DELETING)
        await until(owned, lambda left: not left)
    await cloud.nothing_is_left()
