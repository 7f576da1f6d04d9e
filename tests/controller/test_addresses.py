"""Addresses and blocks against a real API server: both families, what is asked for, what is full, what is returned."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from corral import allocate, kube, queue
from corral.controller import process, sweep, world
from corral_lab.control_plane import plane

from .simulated_cloud import CONTROLLER, SimulatedCloud, is_ready, message, until

pytestmark = pytest.mark.api


async def net(cloud: SimulatedCloud, name: str, *prefixes: str, **spec: Any) -> list[dict[str, Any]]:
    """A pool and a network of this name; what a VirtualMachine says to be on it."""
    await cloud.offer(world.POOLS, name, {"prefixes": list(prefixes), "coolDownSeconds": 0, **spec})
    await cloud.offer(world.CLUSTER_NETWORKS, name, {"poolRefs": [{"name": cloud.named(name)}]})
    return [{"networkRef": {"name": cloud.named(name)}}]


def asking(networks: list[dict[str, Any]], *addresses: str) -> list[dict[str, Any]]:
    return [{**networks[0], "addresses": list(addresses)}]


def has(vm: kube.Object) -> list[str]:
    return [one["address"] for one in vm["status"]["placement"]["addresses"]]


def host_of(vm: kube.Object) -> str:
    return str(vm["status"]["placement"]["host"])


async def state(cloud: SimulatedCloud, name: str) -> kube.Object:
    found = await cloud.admin.get(world.HOST_STATES, f"corral-host-{name}", name)
    assert found is not None
    return found


async def blocks(cloud: SimulatedCloud) -> dict[str, str]:
    """The host of each block."""
    return {obj["spec"]["prefix"]: obj["spec"]["host"] for obj in await cloud.all(world.BLOCKS)}


def dropped(cloud: SimulatedCloud, host: str) -> set[str]:
    """What the host has blackholes for."""
    return {prefix for _, prefix in cloud.hosts[host].routing.blackholes}


async def is_dropped(cloud: SimulatedCloud, host: str) -> set[str]:
    return dropped(cloud, host)


async def test_an_interface_gets_an_address_of_each_family_of_a_block_of_its_host(cloud: SimulatedCloud) -> None:
    networks = await net(cloud, "both", "10.94.0.0/24", "fd94::/64")
    for name in ("a", "b", "c"):
        await cloud.vm(name, networks=networks)
    vms = await cloud.ready("a", "b", "c")
    own = await blocks(cloud)
    assert all(name == allocate.block_name(prefix) for prefix, name in await _named(cloud))
    for vm in vms:
        four, six = has(vm)
        for address in (four, six):
            (block,) = [prefix for prefix in own if allocate.contains([prefix], address)]
            assert own[block] == host_of(vm)
    for name in cloud.hosts:
        mine = list(allocate.ordered(prefix for prefix, host in own.items() if host == name))
        found = await until(lambda name=name: state(cloud, name), lambda one, mine=mine: one["spec"]["blocks"] == mine)
        assert found["spec"]["pools"] == ["10.94.0.0/24", "10.99.0.0/24", "fd94::/64"]
        await until(lambda name=name: is_dropped(cloud, name), lambda seen, mine=mine: seen == set(mine))


async def _named(cloud: SimulatedCloud) -> list[tuple[str, str]]:
    return [(obj["spec"]["prefix"], obj["metadata"]["name"]) for obj in await cloud.all(world.BLOCKS)]


async def test_an_address_is_had_for_the_asking_if_it_is_there_and_free(cloud: SimulatedCloud) -> None:
    networks = await net(cloud, "both", "10.94.0.0/24", "fd94::/64")
    await cloud.vm("web", networks=asking(networks, "fd94::77", "10.94.0.200"))
    await cloud.vm("half", networks=asking(networks, "10.94.0.201"))
    web, half = await cloud.ready("web", "half")
    assert has(web) == ["10.94.0.200", "fd94::77"]
    assert has(half)[0] == "10.94.0.201"
    assert allocate.version(has(half)[1]) == 6
    assert (await blocks(cloud))["10.94.0.192/26"] in cloud.hosts
    for name, address, reason, words in (
        ("strange", "10.95.0.5", "AddressNotInPool", ["which no IPPool of ClusterNetwork", "10.94.0.0/24, fd94::/64"]),
        ("edge", "10.94.0.255", "AddressNotInPool", ["the first or the last of its prefix"]),
        ("anycast", "fd94::", "AddressNotInPool", ["the first or the last of its prefix"]),
        ("late", "10.94.0.200", "AddressTaken", ["10.94.0.200, which VirtualMachine web has"]),
    ):
        await cloud.vm(name, networks=asking(networks, address))
        told = message(await cloud.says(name, reason))
        assert [word for word in words if word not in told] == [], told
    await cloud.delete("web")
    (late,) = await cloud.ready("late")
    assert has(late)[0] == "10.94.0.200"


async def test_who_has_an_address_in_another_namespace_is_not_told(cloud: SimulatedCloud) -> None:
    networks = await net(cloud, "both", "10.94.0.0/24", coolDownSeconds=3600)
    spec = {
        "address": "10.94.0.9",
        "poolRef": {"name": cloud.named("both")},
        "networkRef": {"kind": "ClusterNetwork", "name": cloud.named("both")},
        "owner": {"namespace": "elsewhere", "name": "secret-project", "uid": "1"},
        "interface": "eth0",
    }
    await cloud.stop_controller()
    taken = await cloud.admin.create(world.ALLOCATIONS, {"metadata": {"name": "v4-10-94-0-9"}, "spec": spec})
    await cloud.start_controller()
    await cloud.vm("web", networks=asking(networks, "10.94.0.9"))
    told = message(await cloud.says("web", "AddressTaken"))
    assert "which another VirtualMachine has" in told
    assert "secret-project" not in told
    await cloud.admin.delete(world.ALLOCATIONS, taken)
    (vm,) = await cloud.ready("web")
    assert has(vm) == ["10.94.0.9"]


async def test_of_two_pools_that_overlap_the_later_one_gives_nothing(cloud: SimulatedCloud) -> None:
    networks = await net(cloud, "zz-later", "10.99.0.0/25")
    await cloud.vm("web", networks=networks)
    told = message(await cloud.says("web", "PoolOverlaps"))
    assert cloud.named("zz-later") in told
    assert await cloud.all(world.ALLOCATIONS) == []
    found = await cloud.get(world.POOLS, cloud.named("pool"))
    assert found is not None
    await cloud.admin.delete(world.POOLS, found)
    (vm,) = await cloud.ready("web")
    assert has(vm) == ["10.99.0.1"]


async def test_a_full_pool_lends_addresses_of_others_blocks_and_then_says_that_it_is_full(
    cloud: SimulatedCloud,
) -> None:
    networks = await net(cloud, "tiny", "10.94.0.0/29", blockSize={"ipv4": 29})
    names = [f"vm-{number}" for number in range(7)]
    for name in names[:6]:
        await cloud.vm(name, networks=networks)
    vms = await cloud.ready(*names[:6])
    assert {host_of(vm) for vm in vms} == set(cloud.hosts)
    assert len({address for vm in vms for address in has(vm)}) == 6
    assert len(await blocks(cloud)) == 1
    await cloud.vm(names[6], networks=networks)
    told = message(await cloud.says(names[6], "PoolExhausted"))
    assert "6 of 6 addresses are taken, in 1 blocks of 1 hosts" in told
    await cloud.delete(names[0])
    await cloud.ready(names[6])


async def test_an_address_rests_before_another_guest_has_it_also_with_a_new_controller(cloud: SimulatedCloud) -> None:
    networks = await net(cloud, "rest", "10.94.0.0/30", blockSize={"ipv4": 30}, coolDownSeconds=4)
    for name in ("a", "b"):
        await cloud.vm(name, networks=networks)
    await cloud.ready("a", "b")
    await cloud.delete("a")
    await until(lambda: cloud.all(world.INSTANCES), lambda left: len(left) == 1)
    await cloud.vm("c", networks=networks)
    told = message(await cloud.says("c", "PoolExhausted"))
    await cloud.stop_controller()
    await cloud.start_controller()
    begun = asyncio.get_running_loop().time()
    await cloud.ready("b", "c")
    assert asyncio.get_running_loop().time() - begun > 3.5
    assert "2 of 2 addresses are taken" in told


async def test_who_comes_back_by_its_name_and_asks_for_its_address_has_it_at_once(cloud: SimulatedCloud) -> None:
    networks = asking(await net(cloud, "rest", "10.94.0.0/24", coolDownSeconds=3600), "10.94.0.7")
    await cloud.vm("web", networks=networks)
    (before,) = await cloud.ready("web")
    await cloud.delete("web")
    await until(lambda: cloud.all(world.INSTANCES), lambda left: not left)
    await cloud.vm("web", networks=networks)
    (after,) = await cloud.ready("web")
    assert has(after) == has(before) == ["10.94.0.7"]
    assert after["metadata"]["uid"] != before["metadata"]["uid"]


async def test_an_address_stays_through_halt_and_start(cloud: SimulatedCloud) -> None:
    networks = await net(cloud, "both", "10.94.0.0/24", "fd94::/64")
    for name in ("other", "web"):
        await cloud.vm(name, networks=networks)
    (_, before) = await cloud.ready("other", "web")
    await cloud.delete("other")
    await cloud.patch(world.VMS, "web", {"runStrategy": "Halted"})
    await cloud.ready("web", reason="Halted")
    await cloud.stop_controller()
    await cloud.start_controller()
    await cloud.patch(world.VMS, "web", {"runStrategy": "Always"})
    (after,) = await cloud.ready("web")
    assert after["status"]["placement"] == before["status"]["placement"]


async def test_an_address_goes_with_its_guest_to_another_host_and_its_block_stays(cloud: SimulatedCloud) -> None:
    networks = await net(cloud, "both", "10.94.0.0/24", "fd94::/64")
    await cloud.vm("web", networks=networks)
    (before,) = await cloud.ready("web")
    first = host_of(before)
    await cloud.stop_controller()
    await cloud.patch(world.HOSTS, first, {"maintenance": True})
    (instance,) = await cloud.all(world.INSTANCES)
    await cloud.admin.delete(world.INSTANCES, instance)
    await until(lambda: cloud.all(world.INSTANCES), lambda left: not left)
    vm = await cloud.get(world.VMS, "web")
    assert vm is not None
    await cloud.admin.patch(world.VMS, vm, {"status": {"placement": None}}, subresource="status")
    await cloud.start_controller(block_idle_for=0.2)
    (after,) = await until(
        lambda: cloud.ready("web"),
        lambda found: (found[0]["status"].get("placement") or {}).get("host") not in (None, first),
    )
    assert has(after) == has(before)
    await asyncio.sleep(1.0)
    assert set((await blocks(cloud)).values()) == {first}, "an address of it is taken"
    assert dropped(cloud, host_of(after)) == set()
    assert len(await cloud.all(world.ALLOCATIONS)) == 2


async def test_an_empty_block_is_returned_once_its_host_drops_nothing_for_it(cloud: SimulatedCloud) -> None:
    networks = await net(cloud, "both", "10.94.0.0/24", "fd94::/64")
    await cloud.stop_controller()
    await cloud.start_controller(block_idle_for=0.5)
    await cloud.vm("web", networks=networks)
    (vm,) = await cloud.ready("web")
    host = host_of(vm)
    await until(lambda: is_dropped(cloud, host), lambda seen: seen == {"10.94.0.0/26", "fd94::/112"})
    await asyncio.sleep(1.0)
    assert set(await blocks(cloud)) == {"10.94.0.0/26", "fd94::/112"}, "an address of each is taken"
    await cloud.delete("web")
    seen: set[tuple[bool, bool]] = set()

    async def look() -> bool:
        written = "10.94.0.0/26" in await blocks(cloud)
        seen.add((written, "10.94.0.0/26" in dropped(cloud, host)))
        return written

    await until(look, lambda written: not written)
    assert (False, True) not in seen, "a block was nobody's while its host still had it"
    assert (await state(cloud, host))["spec"]["blocks"] == []
    assert await blocks(cloud) == {}


async def test_a_block_of_a_host_whose_agent_is_silent_stays(cloud: SimulatedCloud) -> None:
    networks = await net(cloud, "both", "10.94.0.0/24")
    await cloud.vm("web", networks=networks)
    (vm,) = await cloud.ready("web")
    await cloud.delete("web")
    await cloud.nothing_is_left()
    metal = cloud.hosts[host_of(vm)]
    await cloud.stop_agent(metal)
    await cloud.stop_controller()
    await cloud.start_controller(block_idle_for=0.2)
    await until(lambda: state(cloud, metal.name), lambda one: one["spec"]["blocks"] == [])
    await asyncio.sleep(1.5)
    assert await blocks(cloud) == {"10.94.0.0/26": metal.name}
    cloud.start_agent(metal)
    await until(lambda: blocks(cloud), lambda left: not left)


async def test_what_somebody_removed_on_the_host_or_in_the_api_comes_right(cloud: SimulatedCloud) -> None:
    await cloud.vm("web")
    (vm,) = await cloud.ready("web")
    host = host_of(vm)
    await until(lambda: is_dropped(cloud, host), lambda seen: seen == {"10.99.0.0/26"})
    metal = cloud.hosts[host]
    metal.routing.blackholes.clear()
    metal.routing.listeners.tell("")
    await until(lambda: is_dropped(cloud, host), lambda seen: seen == {"10.99.0.0/26"}, 1.0)
    (block,) = await cloud.all(world.BLOCKS)
    await cloud.admin.delete(world.BLOCKS, block)
    await until(lambda: state(cloud, host), lambda one: one["spec"]["blocks"] == [])
    await asyncio.sleep(0.3)
    assert dropped(cloud, host) == {"10.99.0.0/26"}, "a guest has an address of it"
    (again,) = await cloud.ready("web")
    assert has(again) == has(vm)


class Unled:
    """A controller that leads whoever else does, and sees nothing but by sweeps, which are late."""

    def __init__(self, api: kube.Kube) -> None:
        self.api = api
        self.world = process.make_world(api)
        self.queue: queue.Queue[kube.Key] = queue.Queue(
            lambda key: process.reconcile(self.world, key),
            queue.Settings(workers=8, first_delay=0.02, longest_delay=0.2),
            expected=(kube.ApiError,),
        )
        self.world.tell = self.queue.add

    async def run(self) -> None:
        await process.fill(self.world)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.queue.run())
            while True:
                await asyncio.sleep(0.3)
                await sweep.sweep(self.world, process.COLLECTIONS)


@pytest_asyncio.fixture
async def two(cloud: SimulatedCloud, control_plane: plane.ControlPlane) -> AsyncIterator[list[Unled]]:
    """Two controllers at once, with no fence between them."""
    await cloud.stop_controller()
    kubeconfig = str(control_plane.kubeconfig(CONTROLLER))
    made = [Unled(await kube.Kube.connect(kubeconfig, user_agent="corral-controller")) for _ in range(2)]
    yield made
    for one in made:
        await one.api.close()


async def test_two_controllers_at_once_never_give_an_address_or_a_block_twice(
    cloud: SimulatedCloud, two: list[Unled]
) -> None:
    networks = await net(cloud, "both", "10.94.0.0/27", "fd94::/64", blockSize={"ipv4": 29})
    names = [f"vm-{number}" for number in range(24)]
    tasks = [asyncio.create_task(one.run()) for one in two]
    given: dict[str, set[str]] = {}

    async def look() -> int:
        for obj in await cloud.all(world.INSTANCES):
            for nic in obj["spec"]["interfaces"]:
                for address in nic["addresses"]:
                    given.setdefault(address, set()).add(obj["spec"]["owner"]["uid"])
        return sum(is_ready(vm) for vm in await cloud.all(world.VMS))

    try:
        await asyncio.gather(*(cloud.vm(name, networks=networks) for name in names))
        await until(look, lambda ready: ready == len(names), 60.0)
        assert not [task.exception() for task in tasks if task.done()]
        assert {address: owners for address, owners in given.items() if len(owners) > 1} == {}
        assert len(given) == 2 * len(names)
        kept = await cloud.all(world.ALLOCATIONS)
        assert Counter((obj["spec"]["owner"]["uid"], obj["spec"]["address"]) for obj in kept) == Counter(
            (uid, address) for address, owners in given.items() for uid in owners
        )
        running = Counter(uid for metal in cloud.hosts.values() for uid in metal.running)
        assert set(running.values()) == {1}
        assert len(running) == len(names)
        assert len(await blocks(cloud)) <= 4 + 2
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
