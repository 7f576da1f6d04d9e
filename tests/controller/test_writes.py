"""What a VirtualMachine costs in writes to the API, by the API server's own account."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from corral import kube
from corral.controller import process, world

from .simulated_cloud import SimulatedCloud, until

pytestmark = pytest.mark.api

CREATED = Counter(
    {
        "patch virtualmachines/status": 2,
        "create ipallocations": 1,
        "create instances": 1,
        "patch instances/status": 1,
    }
)
DELETED = Counter({"delete instances": 1, "patch instances": 1, "delete ipallocations": 1})
QUIET = 0.5
"""Seconds in which whoever would write something has done it."""


def times(counts: Counter[str], number: int) -> Counter[str]:
    return Counter({what: count * number for what, count in counts.items()})


@pytest_asyncio.fixture(scope="module")
async def warm_cloud(shared_cloud: SimulatedCloud) -> SimulatedCloud:
    """The image is on both hosts, and whoever tells that has told it."""
    await shared_cloud.vm("one")
    await shared_cloud.vm("two")
    await shared_cloud.ready("one", "two")
    image, hosts = shared_cloud.named("image"), set(shared_cloud.hosts)
    await until(
        lambda: shared_cloud.get(world.CLUSTER_IMAGES, image),
        lambda found: found is not None and hosts <= set(found["status"].get("hosts", ())),
    )
    await shared_cloud.empty()
    return shared_cloud


@pytest_asyncio.fixture
async def cloud(warm_cloud: SimulatedCloud) -> AsyncIterator[SimulatedCloud]:
    await asyncio.sleep(QUIET)
    warm_cloud.mark()
    yield warm_cloud
    await warm_cloud.empty()


async def test_create_is_four_writes_and_one_an_address_and_delete_two_and_one(cloud: SimulatedCloud) -> None:
    await cloud.vm("web")
    await cloud.ready("web")
    await asyncio.sleep(QUIET)
    assert cloud.writes() == CREATED
    cloud.mark()
    await cloud.delete("web")
    await cloud.nothing_is_left()
    await asyncio.sleep(QUIET)
    assert cloud.writes() == DELETED


async def test_twenty_at_once_cost_no_more_each(cloud: SimulatedCloud) -> None:
    names = [f"vm-{number}" for number in range(20)]
    await asyncio.gather(*(cloud.vm(name) for name in names))
    await cloud.ready(*names)
    await asyncio.sleep(QUIET)
    assert cloud.writes() == times(CREATED, 20)
    cloud.mark()
    await asyncio.gather(*(cloud.delete(name) for name in names))
    await cloud.nothing_is_left()
    await asyncio.sleep(QUIET)
    assert cloud.writes() == times(DELETED, 20)


async def test_hosts_tell_what_guests_take_of_them_once_a_burst(cloud: SimulatedCloud) -> None:
    async def told() -> list[int]:
        hosts = [await cloud.get(world.HOSTS, name) for name in cloud.hosts]
        return [host["status"]["allocated"]["guests"] for host in hosts if host is not None]

    await until(told, lambda guests: guests == [0, 0])
    cloud.mark()
    names = [f"vm-{number}" for number in range(20)]
    await asyncio.gather(*(cloud.vm(name) for name in names))
    await cloud.ready(*names)
    assert await until(told, lambda guests: sum(guests) == 20) == [10, 10]
    # Of the looks, which are 5 s apart, one may fall into the burst.
    assert 2 <= cloud.writes("hosts")["patch hosts/status"] <= 4


async def test_two_addresses_are_one_write_more(cloud: SimulatedCloud) -> None:
    net = {"networkRef": {"name": cloud.named("net")}}
    await cloud.vm("web", networks=[{"name": "eth0", **net}, {"name": "eth1", **net}])
    (vm,) = await cloud.ready("web")
    await asyncio.sleep(QUIET)
    assert cloud.writes() == CREATED + Counter({"create ipallocations": 1})
    assert len({placed["address"] for placed in vm["status"]["placement"]["addresses"]}) == 2
    cloud.mark()
    await cloud.delete("web")
    await cloud.nothing_is_left()
    await asyncio.sleep(QUIET)
    assert cloud.writes() == DELETED + Counter({"delete ipallocations": 1})


async def test_user_data_of_a_secret_is_one_write_more(cloud: SimulatedCloud) -> None:
    metadata = {"name": "mine", "namespace": cloud.namespace}
    mine = await cloud.admin.create(kube.SECRETS, {"metadata": metadata, "stringData": {"userData": "#cloud-config\n"}})
    await cloud.vm("web", cloudInit={"userDataSecretRef": {"name": "mine"}})
    await cloud.ready("web")
    await asyncio.sleep(QUIET)
    assert cloud.writes() == CREATED + Counter({"create secrets": 1})
    cloud.mark()
    await cloud.delete("web")
    await cloud.nothing_is_left()
    await asyncio.sleep(QUIET)
    assert cloud.writes() == DELETED
    await cloud.admin.delete(kube.SECRETS, mine)


async def test_restarts_write_nothing(cloud: SimulatedCloud) -> None:
    names = [f"vm-{number}" for number in range(5)]
    for name in names:
        await cloud.vm(name)
    await cloud.vm("impossible", classRef={"name": cloud.named("none")})
    await cloud.ready(*names)
    await cloud.says("impossible", "ClassNotFound")
    await asyncio.sleep(QUIET)
    cloud.mark()
    await cloud.stop_controller()
    await asyncio.gather(*(cloud.stop_agent(metal) for metal in cloud.hosts.values()))
    await cloud.start_controller()
    for metal in cloud.hosts.values():
        cloud.start_agent(metal)
    await asyncio.sleep(1.5)
    assert cloud.writes() == Counter()
    assert sum(len(metal.running) for metal in cloud.hosts.values()) == 5


async def test_nothing_is_written_when_nothing_changed_and_everything_is_looked_at(cloud: SimulatedCloud) -> None:
    await cloud.vm("web")
    await cloud.ready("web")
    await asyncio.sleep(QUIET)
    await cloud.stop_controller()
    cloud.mark()
    await cloud.start_controller(sweep_every=0.2)
    for metal in cloud.hosts.values():
        await cloud.stop_agent(metal)
        cloud.start_agent(metal, look_every=0.2)
    await asyncio.sleep(1.5)
    assert cloud.writes() == Counter()
    await cloud.stop_controller()
    await cloud.start_controller()


async def test_the_last_kind_that_is_listed_is_what_everything_else_stands_for() -> None:
    order = [where.plural for where in process.COLLECTIONS]
    assert order.index(world.VMS.plural) > order.index(world.INSTANCES.plural)
    assert order.index(world.VMS.plural) > order.index(world.ALLOCATIONS.plural)
