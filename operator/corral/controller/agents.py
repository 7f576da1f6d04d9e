"""The look for agents: one list of their Leases, and whoever is concerned by what began or ceased to answer."""

from __future__ import annotations

import time

from corral import kube
from corral.controller import dependents, heartbeats
from corral.controller.world import CLOUD_KEY, HOSTS, World
from corral.resolve import instance as resolve_instance


async def look(world: World, namespace: str | None = None) -> None:
    """Take in the signs of life of all agents, or only of the one in this namespace. Raises `kube.ApiError`."""
    pages = world.api.pages(kube.LEASES, namespace, label_selector=heartbeats.LABEL)
    # An agent may say what it likes in its own namespace, and nothing there counts for another host.
    leases = [lease async for page in pages for lease in page if _is_its_own(lease)]
    changed = world.heartbeats.take(leases, now=time.monotonic(), wall=world.clock())
    for name in sorted(changed):
        world.tell(kube.Key(HOSTS.plural, "", name), 0.0)
        for key in dependents.guests_of(world, name):
            world.tell(key, 0.0)
    if changed:
        world.tell(CLOUD_KEY, 0.0)
        for key in dependents.unplaced(world):
            world.tell(key, 0.0)


def _is_its_own(lease: kube.Object) -> bool:
    metadata = lease["metadata"]
    namespace = resolve_instance.namespace(metadata["labels"][heartbeats.LABEL])
    return (metadata["namespace"], metadata["name"]) == (namespace, heartbeats.NAME)
