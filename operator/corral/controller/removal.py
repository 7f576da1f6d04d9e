"""What is left of a VirtualMachine that is gone: its Instance, then its addresses, in this order and only with proof.

A VirtualMachine is gone when a GET says so, and its uid never comes back; its Instance is gone when a GET says so; only
then may another guest have its addresses, after they have rested for a while. Nothing here acts on an event.
"""

from __future__ import annotations

import contextlib
import time

import structlog

from corral import kube
from corral.api import objects, schema
from corral.api.v1alpha1 import ippool
from corral.controller.world import ALLOCATIONS, CLOUD_KEY, INSTANCES, OWNER, POOLS, VMS, World

HELD_RETRY = 5.0
"""In how many seconds a removal that the guard holds is asked for again."""

log = structlog.get_logger(__name__)


async def remove_leftovers(world: World, key: kube.Key) -> float | None:
    """Remove what stands for VirtualMachines that had this key and are gone.

    In how many seconds to ask again, None where nothing is held.
    """
    owner = f"{key.namespace}/{key.name}"
    instances = await _standing(world, INSTANCES, owner)
    allocations = await _standing(world, ALLOCATIONS, owner)
    living = await _living(world, key, {_uid(obj) for obj in (*instances, *allocations)})
    if living is not None and world.guard.forget(living):
        world.tell(CLOUD_KEY, 0.0)
    waiting = None
    for obj in instances:
        if _uid(obj) == living or "deletionTimestamp" in obj["metadata"]:
            continue
        if not await _remove_instance(world, obj):
            waiting = HELD_RETRY
    occupied = {_uid(obj) for obj in instances} | {living}
    for obj in allocations:
        if _uid(obj) in occupied:
            world.cooling.forget(obj["metadata"]["uid"])
        elif rests := 0.0 if _is_asked_for(world, key, obj) else _rests(world, obj):
            waiting = rests if waiting is None else min(waiting, rests)
        else:
            with world.doubting(ALLOCATIONS, obj):
                await world.api.delete(ALLOCATIONS, obj)
            world.store.settle(ALLOCATIONS, kube.key_of(ALLOCATIONS, obj), None)
    return waiting


def _rests(world: World, obj: kube.Object) -> float:
    """For how many seconds nobody is given the address yet, by the word of its pool."""
    name = obj["spec"]["poolRef"]["name"]
    pool = world.store.get(kube.Key(POOLS.plural, "", name))
    seconds = ippool.COOL_DOWN
    if pool is not None:
        with contextlib.suppress(objects.NotUnderstood):
            seconds = objects.parsed(pool, ippool.IPPoolSpec, schema.Observed).spec.cool_down_seconds
    return world.cooling.left(obj["metadata"]["uid"], name, float(seconds))


def _is_asked_for(world: World, key: kube.Key, obj: kube.Object) -> bool:
    """Whether a new VirtualMachine of the same name asks for the address: its tenant knows what was there before."""
    vm = world.store.get(key)
    nics = () if vm is None else vm["spec"].get("networks", ())
    return any(obj["spec"]["address"] in nic.get("addresses", ()) for nic in nics)


def _uid(obj: kube.Object) -> str:
    return str(obj["spec"]["owner"]["uid"])


async def _standing(world: World, where: kube.Collection, owner: str) -> list[kube.Object]:
    """What there is for this owner, by the API server's word where there is a doubt."""
    found = [await world.current(where, kube.key_of(where, obj)) for obj in world.store.by(where.plural, OWNER, owner)]
    return [obj for obj in found if obj is not None]


async def _living(world: World, key: kube.Key, owners: set[str]) -> str | None:
    """The uid of the VirtualMachine; where something stands for another one, by the API server's own word."""
    seen = world.store.get(key)
    uid = None if seen is None else str(seen["metadata"]["uid"])
    if all(owner == uid or world.store.is_buried(owner) for owner in owners):
        return uid
    asked = world.store.ask(key)
    answer = await world.api.get(VMS, key.namespace, key.name)
    world.store.settle(VMS, key, answer, asked)
    living = None if answer is None else str(answer["metadata"]["uid"])
    for owner in owners - {living}:
        world.store.bury(owner)
    return living


async def _remove_instance(world: World, obj: kube.Object) -> bool:
    if not world.guard.may_remove(_uid(obj), fleet=world.store.count(VMS.plural), now=time.monotonic()):
        world.tell(CLOUD_KEY, 0.0)
        return False
    log.info("removing the instance of a virtual machine that is gone", instance=str(kube.key_of(INSTANCES, obj)))
    with world.doubting(INSTANCES, obj):
        left = await world.api.delete(INSTANCES, obj)
    if left is not None:
        world.store.put(INSTANCES, left)
    return True
