from __future__ import annotations

import datetime
import time
from collections.abc import Mapping
from typing import Any

import pytest

from corral import kube
from corral.controller import process, removal, world

from .things import a_machine, a_pool, an_allocation, an_instance

KEY = kube.Key("virtualmachines", "shop", "web")


class Kept(kube.Kube):
    """An API server in memory, of which only reading and deleting are asked. `deleted` are names, in order."""

    def __init__(self) -> None:
        self.objects: dict[kube.Key, kube.Object] = {}
        self.deleted: list[str] = []

    async def get(self, where: kube.Collection, namespace: str | None, name: str) -> kube.Object | None:
        return self.objects.get(kube.Key(where.plural, namespace or "", name))

    async def delete(self, where: kube.Collection, seen: Mapping[str, Any]) -> kube.Object | None:
        key = kube.key_of(where, seen)
        self.deleted.append(key.name)
        if where.kind != "Instance":
            self.objects.pop(key, None)
            return None
        # The agent's finalizer keeps it, until nothing of the guest is left.
        self.objects[key] = left = an_instance(
            seen["spec"]["owner"]["uid"], metadata={"uid": seen["metadata"]["uid"], "deletionTimestamp": "now"}
        )
        return left


@pytest.fixture
def api() -> Kept:
    return Kept()


class Steady:
    """A clock that goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def steady() -> Steady:
    return Steady()


@pytest.fixture
def here(api: Kept, steady: Steady) -> world.World:
    made = process.make_world(api, now=steady)
    made.clock = lambda: datetime.datetime(2026, 1, 31, 12, 0, 0, tzinfo=datetime.UTC)
    return made


def there(here: world.World, api: Kept, where: kube.Collection, obj: kube.Object) -> kube.Key:
    """The object stands in the API and in the store."""
    key = kube.key_of(where, obj)
    api.objects[key] = obj
    here.store.put(where, obj)
    return key


def vanish(here: world.World, api: Kept, key: kube.Key) -> None:
    """The object is gone, and an event says so."""
    api.objects.pop(key, None)
    here.store.doubt(key)


def living(here: world.World, api: Kept, uid: str) -> kube.Key:
    """The machine of this uid lives."""
    return there(here, api, world.VMS, a_machine("web", uid=uid))


async def test_the_addresses_go_after_the_instance_is_gone_by_proof(here: world.World, api: Kept) -> None:
    here.store.put(world.POOLS, a_pool("pool", "10.7.0.0/24", coolDownSeconds=0))
    instance = there(here, api, world.INSTANCES, an_instance("u1"))
    there(here, api, world.ALLOCATIONS, an_allocation("u1", "10.7.0.1"))
    for _ in range(3):
        await removal.remove_leftovers(here, KEY)
    assert api.deleted == [instance.name], "once, and nothing proved yet that it is gone"
    vanish(here, api, instance)
    await removal.remove_leftovers(here, KEY)
    assert api.deleted == [instance.name, "v4-10-7-0-1"]
    assert here.store.count("ipallocations") == here.store.count("instances") == 0


async def test_an_address_rests_after_its_instance_is_gone(here: world.World, api: Kept, steady: Steady) -> None:
    here.store.put(world.POOLS, a_pool("pool", "10.7.0.0/24", coolDownSeconds=90))
    instance = there(here, api, world.INSTANCES, an_instance("u1"))
    there(here, api, world.ALLOCATIONS, an_allocation("u1", "10.7.0.1"))
    await removal.remove_leftovers(here, KEY)
    steady.now += 500
    vanish(here, api, instance)
    assert await removal.remove_leftovers(here, KEY) == 90
    steady.now += 89
    assert await removal.remove_leftovers(here, KEY) == 1
    assert here.cooling.count("pool") == 1
    assert "v4-10-7-0-1" not in api.deleted
    steady.now += 1
    assert await removal.remove_leftovers(here, KEY) is None
    assert api.deleted[-1] == "v4-10-7-0-1"
    assert here.cooling.count("pool") == 0


async def test_where_the_pool_is_gone_an_address_rests_as_long_as_any(here: world.World, api: Kept) -> None:
    there(here, api, world.ALLOCATIONS, an_allocation("u1", "10.7.0.1"))
    assert await removal.remove_leftovers(here, KEY) == 60


@pytest.mark.parametrize(("asks", "goes"), [("10.7.0.1", True), ("10.7.0.2", False)])
async def test_who_comes_by_the_same_name_and_asks_for_the_address_need_not_wait(
    here: world.World, api: Kept, asks: str, goes: bool
) -> None:
    networks = [{"networkRef": {"name": "default"}, "addresses": [asks]}]
    there(here, api, world.VMS, a_machine("web", uid="u2", networks=networks))
    there(here, api, world.ALLOCATIONS, an_allocation("u1", "10.7.0.1"))
    await removal.remove_leftovers(here, KEY)
    assert api.deleted == (["v4-10-7-0-1"] if goes else [])


async def test_what_is_of_the_living_stays(here: world.World, api: Kept) -> None:
    living(here, api, "u1")
    there(here, api, world.INSTANCES, an_instance("u1"))
    there(here, api, world.ALLOCATIONS, an_allocation("u1", "10.7.0.1"))
    assert await removal.remove_leftovers(here, KEY) is None
    assert api.deleted == []


async def test_a_machine_that_the_store_lacks_is_asked_for_before_its_instance_goes(
    here: world.World, api: Kept
) -> None:
    api.objects[KEY] = a_machine("web", uid="u1")
    there(here, api, world.INSTANCES, an_instance("u1"))
    await removal.remove_leftovers(here, KEY)
    assert api.deleted == []
    assert here.store.get(KEY) is not None


async def test_a_new_machine_by_the_name_does_not_keep_what_the_old_one_had(here: world.World, api: Kept) -> None:
    living(here, api, "u2")
    old = there(here, api, world.INSTANCES, an_instance("u1"))
    there(here, api, world.INSTANCES, an_instance("u2"))
    await removal.remove_leftovers(here, KEY)
    assert api.deleted == [old.name]


async def test_an_event_alone_removes_nothing(here: world.World, api: Kept) -> None:
    machine = living(here, api, "u1")
    instance = there(here, api, world.INSTANCES, an_instance("u1"))
    for key in (machine, instance):
        here.store.doubt(key)
    await removal.remove_leftovers(here, KEY)
    assert here.store.get(instance) is not None
    assert not here.store.is_doubtful(instance)
    assert api.deleted == []


async def test_what_somebody_deleted_of_a_living_machine_is_seen_to_be_gone(here: world.World, api: Kept) -> None:
    """Else the store's copy would stand for it for ever, and nobody would make it anew."""
    living(here, api, "u1")
    instance = there(here, api, world.INSTANCES, an_instance("u1"))
    allocation = there(here, api, world.ALLOCATIONS, an_allocation("u1", "10.7.0.1"))
    vanish(here, api, instance)
    vanish(here, api, allocation)
    await removal.remove_leftovers(here, KEY)
    assert here.store.get(instance) is None
    assert here.store.get(allocation) is None


async def test_a_removal_that_is_held_waits_and_tells_the_cloud(here: world.World, api: Kept) -> None:
    told: list[kube.Key] = []
    here.tell = lambda key, _: told.append(key)
    here.guard.hold("u1", time.monotonic())
    instance = there(here, api, world.INSTANCES, an_instance("u1"))
    there(here, api, world.ALLOCATIONS, an_allocation("u1", "10.7.0.1"))
    assert await removal.remove_leftovers(here, KEY) == removal.HELD_RETRY
    assert (api.deleted, here.guard.held, told) == ([], 1, [world.CLOUD_KEY])
    here.guard.release()
    assert await removal.remove_leftovers(here, KEY) is None
    assert api.deleted == [instance.name]


async def test_what_goes_by_another_hand_is_held_no_more(here: world.World, api: Kept) -> None:
    here.guard.hold("u1", time.monotonic())
    instance = there(here, api, world.INSTANCES, an_instance("u1"))
    await removal.remove_leftovers(here, KEY)
    vanish(here, api, instance)
    assert await removal.remove_leftovers(here, KEY) is None
    assert here.guard.held == 0
