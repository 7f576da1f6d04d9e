"""Deletion is proven, never inferred; it is finished whoever missed it, and held where it looks like an accident."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio

from corral import kube
from corral.controller import process, sweep, world

from .simulated_cloud import SimulatedCloud, is_ready, message, said, until

pytestmark = pytest.mark.api


class Blind:
    """A controller's world without a watch, whose keys are worked off when a test says so."""

    def __init__(self, api: kube.Kube) -> None:
        self.world = process.make_world(api)
        self.keys: deque[kube.Key] = deque()
        self.world.tell = lambda key, _after: self.keys.append(key)

    async def work(self) -> None:
        """Work off every key that was told, and those that this tells."""
        while self.keys:
            key = self.keys.popleft()
            await process.RECONCILERS[key.plural](self.world, key)


@pytest_asyncio.fixture
async def blind(cloud: SimulatedCloud, admin: kube.Kube) -> AsyncIterator[Blind]:
    yield Blind(admin)


async def test_an_event_that_a_living_object_is_gone_removes_nothing(cloud: SimulatedCloud, blind: Blind) -> None:
    await cloud.vm("web")
    await cloud.ready("web")
    await cloud.stop_controller()
    await process.fill(blind.world)
    await blind.work()
    for where in (world.VMS, world.INSTANCES, world.ALLOCATIONS):
        (obj,) = await cloud.all(where)
        process.deliver(blind.world, where, "DELETED", obj)
        assert blind.keys
        await blind.work()
        (after,) = await cloud.all(where)
        assert after["metadata"]["resourceVersion"] == obj["metadata"]["resourceVersion"]


async def test_the_sweep_finds_what_a_blind_watch_missed(cloud: SimulatedCloud, blind: Blind) -> None:
    await cloud.vm("old")
    await cloud.ready("old")
    await cloud.stop_controller()
    await process.fill(blind.world)
    await blind.work()
    assert await sweep.sweep(blind.world, (world.VMS, world.INSTANCES, world.ALLOCATIONS)) == 0
    assert not blind.keys
    await cloud.delete("old")
    await cloud.vm("new")
    await cloud.offer(world.CLASSES, "late", {"cpu": 1, "memory": "64Mi"})
    assert await sweep.sweep(blind.world, process.COLLECTIONS) >= 3
    await blind.work()

    async def look_again() -> list[str]:
        await sweep.sweep(blind.world, process.COLLECTIONS)
        await blind.work()
        return [one["spec"]["owner"]["name"] for one in await cloud.all(world.ALLOCATIONS)]

    async def new_is_ready() -> bool:
        return await look_again() == ["new"] and all(is_ready(vm) for vm in await cloud.all(world.VMS))

    await until(new_is_ready, bool)
    late = await cloud.get(world.CLASSES, cloud.named("late"))
    assert late is not None
    await cloud.admin.delete(world.CLASSES, late)
    await look_again()
    assert blind.world.store.get(kube.key_of(world.CLASSES, late)) is None


async def test_a_deletion_while_no_controller_runs_is_finished_by_the_next(cloud: SimulatedCloud) -> None:
    await cloud.vm("web")
    await cloud.ready("web")
    await cloud.stop_controller()
    await cloud.delete("web")
    await asyncio.sleep(0.2)
    assert len(await cloud.all(world.INSTANCES)) == 1
    await cloud.start_controller()
    await cloud.nothing_is_left()


class Meanwhile(kube.Kube):
    """A connection on which something happens between the controller's own list and that of its watch."""

    happens: Callable[[], Awaitable[None]] | None = None

    async def pages(self, where: kube.Collection, *args: Any, **options: Any) -> AsyncIterator[list[kube.Object]]:
        if where == kube.LEASES and self.happens is not None:
            happens, self.happens = self.happens, None
            await happens()
        async for page in super().pages(where, *args, **options):
            yield page


async def test_what_vanishes_between_our_list_and_the_watch_is_found(cloud: SimulatedCloud) -> None:
    await cloud.vm("web")
    await cloud.ready("web")
    await cloud.stop_controller()

    async def vanish() -> None:
        await cloud.delete("web")
        (instance,) = await cloud.all(world.INSTANCES)
        await cloud.admin.delete(world.INSTANCES, instance)
        await until(lambda: cloud.all(world.INSTANCES), lambda found: not found)

    async def connect(kubeconfig: str | None) -> kube.Kube:
        api = await Meanwhile.connect(kubeconfig, user_agent="corral-controller")
        api.happens = vanish
        return api

    await cloud.start_controller(connect)
    await until(lambda: cloud.all(world.INSTANCES), lambda found: not found)
    await cloud.nothing_is_left()


async def test_the_same_name_made_again_at_once_is_another_guest(cloud: SimulatedCloud) -> None:
    await cloud.vm("web")
    (old,) = await cloud.ready("web")
    # The old guest takes its time to shut down.
    metal = cloud.hosts[old["status"]["placement"]["host"]]
    metal.machine.obeys_power_button = False
    await cloud.delete("web")
    new = await cloud.vm("web")
    assert new["metadata"]["uid"] != old["metadata"]["uid"]
    (ready,) = await cloud.ready("web")
    assert ready["metadata"]["uid"] == new["metadata"]["uid"]
    owners = {one["spec"]["owner"]["uid"]: one["spec"]["address"] for one in await cloud.all(world.ALLOCATIONS)}
    if old["metadata"]["uid"] in owners:
        assert len(set(owners.values())) == 2
    await until(lambda: cloud.all(world.ALLOCATIONS), lambda found: len(found) == 1)
    (instance,) = await cloud.all(world.INSTANCES)
    assert instance["spec"]["owner"]["uid"] == new["metadata"]["uid"]
    assert [uid for one in cloud.hosts.values() for uid in one.running] == [new["metadata"]["uid"]]
    await cloud.ready("web")


async def test_many_deletions_at_once_are_held_until_a_person_says_so(cloud: SimulatedCloud) -> None:
    name = world.CLOUD_KEY.name
    await cloud.patch(world.CLOUDS, name, {"deletionGuard": {"floor": 2, "sharePercent": 1}})
    names = [f"vm-{number}" for number in range(6)]
    for one in names:
        await cloud.vm(one)
    await cloud.ready(*names)
    for one in names:
        await cloud.delete(one)

    async def look() -> kube.Object | None:
        return await cloud.get(world.CLOUDS, name)

    held = await until(look, lambda found: found["status"].get("heldRemovals") == 4)
    assert said(held, "Ready") == ("False", "RemovalsHeld")
    assert "heldSince" in message(held)
    assert held["status"]["printableStatus"].startswith("4 removals held")
    await until(lambda: cloud.all(world.INSTANCES), lambda found: len(found) == 4)
    # A restart lets none of them slip through, and does not change what the person is typing.
    await cloud.stop_controller()
    await cloud.start_controller()
    again = await until(look, lambda found: found["status"].get("heldRemovals") == 4)
    assert again["status"]["heldSince"] == held["status"]["heldSince"]
    assert len(await cloud.all(world.INSTANCES)) == 4
    await cloud.patch(world.CLOUDS, name, {"deletionGuard": {"release": held["status"]["heldSince"]}})
    await cloud.nothing_is_left()
    healthy = await until(look, lambda found: said(found, "Ready") == ("True", "Healthy"))
    assert healthy["status"]["heldRemovals"] == 0
    assert "heldSince" not in healthy["status"]
