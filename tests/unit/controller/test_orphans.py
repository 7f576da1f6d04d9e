from __future__ import annotations

from typing import Any

import pytest

from corral import kube, store
from corral.controller import orphans, world

from .things import made


def an_orphan(uid: str, *, epoch: int = 1, address: str = "10.7.0.1", kinds: tuple[str, ...] = ("domain",)) -> Any:
    addresses = [{"interface": "eth0", "address": address}]
    return {"uid": uid, "name": f"shop/{uid}", "kinds": list(kinds), "epoch": epoch, "addresses": addresses}


def a_state(host: str, *found: Any, namespace: str = "") -> kube.Object:
    status = {"observedGeneration": 1, "orphans": list(found), "orphanCount": len(found)}
    where = namespace or f"corral-host-{host}"
    return made(world.HOST_STATES, host, namespace=where, uid=f"{where}-{host}", status=status)


@pytest.fixture
def known() -> store.Store:
    return store.Store()


@pytest.fixture
def told(known: store.Store) -> orphans.Orphans:
    return orphans.Orphans(known, states="hoststates", host_prefix="corral-host-")


def test_an_orphan_is_known_by_its_uid_and_by_its_addresses(known: store.Store, told: orphans.Orphans) -> None:
    known.put(world.HOST_STATES, a_state("h1", an_orphan("u1", epoch=3)))
    lost = told.of("u1")
    assert lost is not None
    assert (lost.host, lost.epoch, [one.address for one in lost.addresses]) == ("h1", 3, ["10.7.0.1"])
    assert told.holder("10.7.0.1") == "u1"
    assert told.counts == {"h1": 1}
    assert told.of("u2") is None
    assert told.holder("10.7.0.2") is None


def test_what_is_no_longer_reported_is_no_longer_known(known: store.Store, told: orphans.Orphans) -> None:
    known.put(world.HOST_STATES, a_state("h1", an_orphan("u1"), an_orphan("u2", address="10.7.0.2")))
    known.put(world.HOST_STATES, a_state("h1", an_orphan("u2", address="10.7.0.2")))
    assert told.of("u1") is None
    assert (told.holder("10.7.0.1"), told.holder("10.7.0.2")) == (None, "u2")
    state = a_state("h1")
    known.put(world.HOST_STATES, state)
    known.settle(world.HOST_STATES, kube.key_of(world.HOST_STATES, state), None)
    assert (told.of("u2"), told.holder("10.7.0.2"), told.counts) == (None, None, {})


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (an_orphan("u1", epoch=1), an_orphan("u1", epoch=2, kinds=("disk",))),
        (an_orphan("u1", kinds=("disk",)), an_orphan("u1")),
    ],
    ids=["placed later", "has a guest"],
)
def test_of_several_the_last_placement_counts_and_then_the_guest(
    known: store.Store, told: orphans.Orphans, first: Any, second: Any
) -> None:
    known.put(world.HOST_STATES, a_state("h1", first))
    known.put(world.HOST_STATES, a_state("h2", second))
    lost = told.of("u1")
    assert lost is not None
    assert lost.host == "h2"
    known.put(world.HOST_STATES, a_state("h2"))
    lost = told.of("u1")
    assert lost is not None
    assert lost.host == "h1"
    assert told.holder("10.7.0.1") == "u1"


def test_a_host_speaks_for_itself_alone(known: store.Store, told: orphans.Orphans) -> None:
    known.put(world.HOST_STATES, a_state("h1", an_orphan("u1"), namespace="corral-host-h2"))
    assert (told.of("u1"), told.holder("10.7.0.1"), told.counts) == (None, None, {})
