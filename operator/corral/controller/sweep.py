"""The sweep: our own lists, at start and every ten minutes, against what the watches told.

Watches can go blind, and a list after a gap reports no deletions. The first list fills the store before anything is
decided; later ones carry metadata only, raise doubts about what is not in them, and fetch what the store lacks.
"""

from __future__ import annotations

from collections.abc import Iterable

import structlog

from corral import kube
from corral.controller.dependents import dependents, settler
from corral.controller.world import World
from corral.store import version

log = structlog.get_logger(__name__)


async def fill(world: World, collections: Iterable[kube.Collection]) -> None:
    """Take every object into the store."""
    for where in collections:
        async for page in world.api.pages(where):
            for obj in page:
                world.store.put(where, obj)


async def sweep(world: World, collections: Iterable[kube.Collection]) -> int:
    """Compare the store with the API, and tell whatever differs; how many objects did."""
    return sum([await _sweep(world, where) for where in collections])


async def _sweep(world: World, where: kube.Collection) -> int:
    before = dict(world.store.all(where.plural))
    listed: dict[kube.Key, kube.Object] = {}
    async for page in world.api.pages(where, metadata_only=True):
        listed |= {kube.key_of(where, obj): obj for obj in page}
    world.history.compare(before, listed)
    differing = 0
    for key, obj in before.items():
        if key not in listed or listed[key]["metadata"]["uid"] != obj["metadata"]["uid"]:
            world.store.doubt(key)
            world.tell(settler(key, obj), 0.0)
            differing += 1
    for key, obj in listed.items():
        seen = world.store.get(key)
        if seen is None or version(seen) < version(obj):
            whole = await world.api.get(where, key.namespace or None, key.name)
            if whole is not None:
                world.history.took(where, whole)
            if whole is not None and world.store.put(where, whole):
                differing += 1
                for dependent in dependents(world, key, whole):
                    world.tell(dependent, 0.0)
    if differing:
        log.info("the sweep found what no event told", kind=where.kind, objects=differing)
    return differing
