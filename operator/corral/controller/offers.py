"""Images, networks and pools: what an operator offers, and whether tenants can use it."""

from __future__ import annotations

from corral import kube
from corral.api import objects
from corral.api.v1alpha1 import host, image, ippool, network
from corral.conclude import offers as conclude
from corral.controller import pools
from corral.controller.world import CLUSTER_IMAGES, CLUSTER_NETWORKS, HOST_STATES, IMAGES, NETWORKS, POOLS, World


async def reconcile_image(world: World, key: kube.Key) -> float | None:
    """Tell what the hosts say of the image."""
    where = IMAGES if key.plural == IMAGES.plural else CLUSTER_IMAGES
    raw = await world.current(where, key)
    if raw is None:
        return None
    one = objects.parsed(raw, image.ImageSpec, image.ImageStatus)
    held: dict[str, tuple[host.HeldImage, ...]] = {}
    for state_key, state in world.store.all(HOST_STATES.plural):
        held[state_key.name] = objects.status_of(state, host.HostStateStatus).images
    status, look_again = conclude.conclude_image(one, held, world.clock())
    await world.write_status(where, raw, status)
    return look_again


async def reconcile_network(world: World, key: kube.Key) -> float | None:
    """Tell whether the network's pools are there."""
    where = NETWORKS if key.plural == NETWORKS.plural else CLUSTER_NETWORKS
    raw = await world.current(where, key)
    if raw is None:
        return None
    one = objects.parsed(raw, network.NetworkSpec, network.NetworkStatus)
    known = (pool_key.name for pool_key, _ in world.store.all(POOLS.plural))
    status, look_again = conclude.conclude_network(one, known, world.clock())
    await world.write_status(where, raw, status)
    return look_again


async def reconcile_pool(world: World, key: kube.Key) -> float | None:
    """Tell whether the pool is the only one to have its addresses; of two, the one that was there first is."""
    raw = await world.current(POOLS, key)
    if raw is None:
        return None
    one = objects.parsed(raw, ippool.IPPoolSpec, ippool.IPPoolStatus)
    earlier = {
        other_key.name: tuple(other["spec"]["prefixes"])
        for other_key, other in world.store.all(POOLS.plural)
        if other_key != key and pools.age(other) < pools.age(raw)
    }
    status, look_again = conclude.conclude_pool(one, earlier, world.clock())
    await world.write_status(POOLS, raw, status)
    return look_again
