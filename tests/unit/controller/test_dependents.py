from __future__ import annotations

from typing import Any

import pytest

from corral import kube
from corral.controller import dependents, process, world

from .things import a_block, a_machine, an_allocation, an_instance, made

SCHEDULED = {"conditions": [{"type": "Scheduled", "status": "True"}], "placement": {"host": "h1", "epoch": 1}}
CLASSY: dict[str, Any] = {"classRef": {"name": "small"}, "networks": [{"networkRef": {"name": "default"}}]}


def full() -> world.World:
    """One of each kind; machines `placed`, of class small on network default, and `waiting`."""
    api: Any = None  # nothing here asks it
    here = process.make_world(api)
    known = here.store
    filled = {
        world.CLOUDS: ["cloud"],
        world.HOSTS: ["h1"],
        world.CLUSTER_IMAGES: ["debian"],
        world.CLUSTER_NETWORKS: ["default"],
        world.POOLS: ["pool", "other"],
        world.CLASSES: ["small"],
    }
    for where, names in filled.items():
        for name in names:
            known.put(where, made(where, name))
    known.put(world.BLOCKS, a_block("10.7.0.0/26", "h1"))
    known.put(world.IMAGES, made(world.IMAGES, "own", namespace="shop"))
    known.put(world.NETWORKS, made(world.NETWORKS, "back", namespace="shop"))
    known.put(world.VMS, a_machine("placed", status=SCHEDULED, **CLASSY))
    known.put(world.VMS, a_machine("waiting"))
    return here


def told(where: kube.Collection, obj: kube.Object) -> set[str]:
    return {str(key) for key in dependents.dependents(full(), kube.key_of(where, obj), obj)}


BLOCK = "ipblocks/v4-10-7-0-0-26"
PLACED, WAITING = "virtualmachines/shop/placed", "virtualmachines/shop/waiting"
IMAGES = {"clusterimages/debian", "images/shop/own"}
NETWORKS = {"clusternetworks/default", "networks/shop/back"}


@pytest.mark.parametrize(
    ("where", "obj", "keys"),
    [
        (world.VMS, a_machine("web"), {"virtualmachines/shop/web"}),
        (world.INSTANCES, an_instance("u1"), {"virtualmachines/shop/web"}),
        (
            world.INSTANCES,
            made(world.INSTANCES, "by-hand", namespace="corral-host-h1"),
            {"instances/corral-host-h1/by-hand"},
        ),
        (world.ALLOCATIONS, an_allocation("u1", "10.7.0.1"), {"virtualmachines/shop/web", BLOCK}),
        (world.ALLOCATIONS, an_allocation("u1", "10.8.0.1"), {"virtualmachines/shop/web"}),
        (world.BLOCKS, a_block("10.7.0.64/26", "h2"), {"ipblocks/v4-10-7-0-64-26", "hosts/h2"}),
        (
            world.HOST_STATES,
            made(world.HOST_STATES, "h1", namespace="corral-host-h1"),
            {"hosts/h1", BLOCK, *IMAGES, WAITING},
        ),
        (world.HOSTS, made(world.HOSTS, "h1"), {"hosts/h1", "clouds/cloud", WAITING}),
        (world.CLUSTER_IMAGES, made(world.CLUSTER_IMAGES, "new"), {"clusterimages/new", WAITING}),
        (world.IMAGES, made(world.IMAGES, "new", namespace="x"), {"images/x/new", WAITING}),
        (world.CLUSTER_NETWORKS, made(world.CLUSTER_NETWORKS, "new"), {"clusternetworks/new", WAITING}),
        (
            world.CLUSTER_NETWORKS,
            made(world.CLUSTER_NETWORKS, "default"),
            {"clusternetworks/default", WAITING, PLACED},
        ),
        (world.POOLS, made(world.POOLS, "pool"), {"ippools/pool", "ippools/other", "hosts/h1", *NETWORKS, WAITING}),
        (world.CLASSES, made(world.CLASSES, "small"), {PLACED}),
        (world.CLOUDS, made(world.CLOUDS, "cloud"), {"clouds/cloud"}),
    ],
)
def test_who_looks_again(where: kube.Collection, obj: kube.Object, keys: set[str]) -> None:
    assert told(where, obj) == keys


def test_the_guests_of_a_host() -> None:
    assert [str(key) for key in dependents.guests_of(full(), "h1")] == [PLACED]
    assert list(dependents.guests_of(full(), "h2")) == []


def test_who_waits_for_others_in_a_namespace() -> None:
    here = full()
    here.store.put(world.VMS, a_machine("asking", placement={"affinity": {}}))
    here.store.put(world.VMS, a_machine("asked", placement={"affinity": {}}, status=SCHEDULED))

    def beside(namespace: str, *, all_of_them: bool) -> set[str]:
        return {str(key) for key in dependents.beside(here, namespace, all_of_them=all_of_them)}

    assert beside("shop", all_of_them=False) == {"virtualmachines/shop/asking"}
    assert beside("shop", all_of_them=True) == {"virtualmachines/shop/asking", WAITING}
    assert beside("bank", all_of_them=True) == set()
