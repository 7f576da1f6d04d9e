from __future__ import annotations

import pytest

from corral import kube
from corral.controller import blocks, process, world

from .small_server import Line, Server, finished
from .things import a_block, a_pool, an_allocation, made

BLOCK = "10.7.0.0/26"
KEY = kube.Key(world.BLOCKS.plural, "", "v4-10-7-0-0-26")


class Ground:
    """An API server, and a controller that knows one pool."""

    def __init__(self) -> None:
        self.server, self.now = Server(), 1000.0
        self.world = process.make_world(Line(self.server), now=lambda: self.now, block_idle_for=100.0)
        self.told: list[str] = []
        self.world.tell = lambda key, _after: self.told.append(str(key))
        self.knows(world.POOLS, a_pool("pool", "10.7.0.0/24"))

    def knows(self, where: kube.Collection, obj: kube.Object) -> kube.Object:
        """The object stands in the API and in the store."""
        namespace = obj["metadata"].get("namespace")
        metadata = {name: obj["metadata"][name] for name in ("name", "namespace") if name in obj["metadata"]}
        _, there = self.server.serve("POST", where.path(namespace), {"metadata": metadata, "spec": obj["spec"]})
        self.world.store.put(where, there)
        return there

    def has_block(self) -> bool:
        return bool(self.server.of(world.BLOCKS.plural))

    def look(self) -> float | None:
        return finished(blocks.reconcile(self.world, KEY))


@pytest.fixture
def ground() -> Ground:
    return Ground()


def test_a_block_is_written_once_and_its_host_is_told_later(ground: Ground) -> None:
    ground.world.space.block(BLOCK, "h1")
    for address in ("10.7.0.1", "10.7.0.2"):
        finished(blocks.ensure(ground.world, address, "h1"))
    (block,) = ground.server.of(world.BLOCKS.plural)
    assert block["metadata"]["name"] == KEY.name
    assert block["spec"] == {"prefix": BLOCK, "poolRef": {"name": "pool"}, "host": "h1"}
    assert ground.told == ["hosts/h1"]
    assert blocks.of_host(ground.world, "h1") == (BLOCK,)


def test_an_address_of_anothers_block_or_of_none_needs_no_block(ground: Ground) -> None:
    ground.world.space.block(BLOCK, "h2")
    for address in ("10.7.0.1", "10.7.0.70", "192.0.2.1"):
        finished(blocks.ensure(ground.world, address, "h1"))
    assert not ground.has_block()


def test_a_block_that_another_controller_gave_away_is_not_ours(ground: Ground) -> None:
    ground.world.space.block(BLOCK, "h1")
    spec = a_block(BLOCK, "h2")["spec"]
    ground.server.serve("POST", world.BLOCKS.path(None), {"metadata": {"name": KEY.name}, "spec": spec})
    with pytest.raises(kube.ApiConflict):
        finished(blocks.ensure(ground.world, "10.7.0.1", "h1"))
    assert ground.world.space.block_at("10.7.0.1") == (BLOCK, "h2")


def test_a_block_with_an_address_that_is_taken_stays_and_its_time_begins_anew(ground: Ground) -> None:
    ground.knows(world.BLOCKS, a_block(BLOCK, "h1"))
    assert ground.look() == 100.0
    ground.now += 60
    allocation = ground.knows(world.ALLOCATIONS, an_allocation("u1", "10.7.0.9"))
    assert ground.look() is None
    ground.now += 60
    ground.world.store.settle(world.ALLOCATIONS, kube.key_of(world.ALLOCATIONS, allocation), None)
    assert ground.look() == 100.0


def test_nothing_is_given_of_a_block_that_is_being_returned_until_it_is_used_again(ground: Ground) -> None:
    ground.knows(world.HOSTS, made(world.HOSTS, "h1"))
    ground.knows(world.BLOCKS, a_block(BLOCK, "h1"))
    ground.look()
    ground.now += 100
    assert ground.look() is not None, "the host has not let go of it"
    assert blocks.of_host(ground.world, "h1") == ()
    offer = ground.world.space.offer("pool", 4, "h1", lambda _: False)
    assert offer is not None
    assert offer.block == "10.7.0.64/26"
    ground.knows(world.ALLOCATIONS, an_allocation("u1", "10.7.0.9"))
    assert ground.look() is None
    assert blocks.of_host(ground.world, "h1") == (BLOCK,)


def test_the_block_of_a_host_that_is_gone_stays_until_nothing_is_left_of_the_host(ground: Ground) -> None:
    state = made(world.HOST_STATES, "h1", namespace="corral-host-h1", spec={"blocks": [BLOCK]})
    there = ground.knows(world.HOST_STATES, state)
    ground.knows(world.BLOCKS, a_block(BLOCK, "h1"))
    ground.look()
    ground.now += 100
    assert ground.look() is None
    assert ground.has_block()
    ground.world.store.settle(world.HOST_STATES, kube.key_of(world.HOST_STATES, there), None)
    assert ground.look() is None
    assert not ground.has_block()
