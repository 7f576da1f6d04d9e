"""What is left of a VirtualMachine that is gone: its Instance, then its addresses, in this order and only with proof.

A VirtualMachine is gone when a GET says so; its Instance is gone when a GET says so; only then may another guest have
its addresses. Nothing here acts on an event.
"""

from __future__ import annotations

import time

import structlog

from corral import kube
from corral.controller.world import ALLOCATIONS, CLOUD_KEY, INSTANCES, OWNER, VMS, World

HELD_RETRY = 5.0
"""In how many seconds a removal that the guard holds is asked for again."""

log = structlog.get_logger(__name__)


async def remove_leftovers(world: World, key: kube.Key, living: str | None) -> float | None:
    """Remove what stands for VirtualMachines that had this key and are not `living`, the uid that has it now.

    The caller has the API server's word for `living`. In how many seconds to ask again, None where nothing is held.
    """
    owner = f"{key.namespace}/{key.name}"
    occupied, waiting = set(), None
    for obj in world.store.by(INSTANCES.plural, OWNER, owner):
        uid = obj["spec"]["owner"]["uid"]
        if await _is_gone(world, INSTANCES, obj):
            world.guard.forget(uid)
            continue
        if uid == living:
            continue
        occupied.add(uid)
        if "deletionTimestamp" not in obj["metadata"] and not await _remove_instance(world, obj):
            waiting = HELD_RETRY
    for obj in world.store.by(ALLOCATIONS.plural, OWNER, owner):
        uid = obj["spec"]["owner"]["uid"]
        if not await _is_gone(world, ALLOCATIONS, obj) and uid != living and uid not in occupied:
            await world.api.delete(ALLOCATIONS, obj)
            world.store.settle(ALLOCATIONS, kube.key_of(ALLOCATIONS, obj), None)
    return waiting


async def _is_gone(world: World, where: kube.Collection, obj: kube.Object) -> bool:
    """Whether it is gone, by the API server's word where there is a doubt; of the living one's, too, or it is never
    made anew."""
    current = await world.current(where, kube.key_of(where, obj))
    return current is None or current["metadata"]["uid"] != obj["metadata"]["uid"]


async def _remove_instance(world: World, obj: kube.Object) -> bool:
    uid = obj["spec"]["owner"]["uid"]
    if not world.guard.may_remove(uid, fleet=world.store.count(VMS.plural), now=time.monotonic()):
        world.tell(CLOUD_KEY, 0.0)
        return False
    log.info("removing the instance of a virtual machine that is gone", instance=str(kube.key_of(INSTANCES, obj)))
    await world.api.delete(INSTANCES, obj)
    return True
