"""Who must look again when something changes: from the change of one object to the keys of others."""

from __future__ import annotations

from collections.abc import Iterator

from corral import allocate, kube
from corral.controller.world import (
    ALLOCATIONS,
    BLOCKS,
    CLASSES,
    CLOUD_KEY,
    CLUSTER_IMAGES,
    CLUSTER_NETWORKS,
    HOST,
    HOST_STATES,
    HOSTS,
    IMAGES,
    INSTANCES,
    NETWORKS,
    POOLS,
    VMS,
    WAITING,
    WAITING_IN,
    World,
    owner_of,
)

_OFFERS = frozenset(one.plural for one in (CLUSTER_IMAGES, IMAGES, CLUSTER_NETWORKS, NETWORKS, POOLS, HOSTS))


_OWNED = frozenset((INSTANCES.plural, ALLOCATIONS.plural))


def settler(key: kube.Key, obj: kube.Object) -> kube.Key:
    """The key whose reconciler asks the API server, where somebody says that this object is gone."""
    owner = owner_of(obj) if key.plural in _OWNED else None
    if owner is None:
        return key
    namespace, _, name = owner.partition("/")
    return kube.Key(VMS.plural, namespace, name)


def after_loss(world: World, key: kube.Key, obj: kube.Object) -> Iterator[kube.Key]:
    """The keys to reconcile once this object is proven gone: who uses it, and who waits for what it held."""
    yield from (one for one in dependents(world, key, obj) if one != key)
    if key.plural in (*_OWNED, BLOCKS.plural):
        yield from unplaced(world)


def dependents(world: World, key: kube.Key, obj: kube.Object) -> Iterator[kube.Key]:
    """The keys to reconcile after this object changed or was made."""
    if key.plural in _OWNED:
        yield settler(key, obj)
        if key.plural == ALLOCATIONS.plural:
            yield from _block_at(world, obj["spec"]["address"])
        return
    if key.plural == BLOCKS.plural:
        yield key
        yield kube.Key(HOSTS.plural, "", obj["spec"]["host"])
        return
    if key.plural == HOST_STATES.plural:
        yield kube.Key(HOSTS.plural, "", key.name)
        yield from (kube.key_of(BLOCKS, block) for block in world.store.by(BLOCKS.plural, HOST, key.name))
        yield from _keys(world, CLUSTER_IMAGES, IMAGES)
        yield from unplaced(world)
        return
    if key.plural != CLASSES.plural:
        yield key
    if key.plural == POOLS.plural:
        yield from _keys(world, CLUSTER_NETWORKS, NETWORKS, POOLS, HOSTS)
    if key.plural == HOSTS.plural:
        yield CLOUD_KEY
    if key.plural in _OFFERS:
        yield from unplaced(world)
    if key.plural in (CLASSES.plural, CLUSTER_NETWORKS.plural, NETWORKS.plural):
        yield from _users(world, key)


def _block_at(world: World, address: str) -> Iterator[kube.Key]:
    """The block that an address is in: it may be empty now, or in use again."""
    if (at := world.space.block_at(address)) is not None:
        yield kube.Key(BLOCKS.plural, "", allocate.block_name(at[0]))


def unplaced(world: World) -> Iterator[kube.Key]:
    """VirtualMachines that wait for a host, an image, a network, an address."""
    yield from (kube.key_of(VMS, vm) for vm in world.store.by(VMS.plural, WAITING, WAITING))


def beside(world: World, namespace: str, *, all_of_them: bool) -> Iterator[kube.Key]:
    """VirtualMachines that wait in this namespace: those that ask who else is where, or all of them."""
    waiting = world.store.by(VMS.plural, WAITING_IN, namespace)
    yield from (kube.key_of(VMS, vm) for vm in waiting if all_of_them or "placement" in vm["spec"])


def guests_of(world: World, host: str) -> Iterator[kube.Key]:
    """VirtualMachines that are placed on this host."""
    yield from (kube.key_of(VMS, vm) for vm in world.store.by(VMS.plural, HOST, host))


def _users(world: World, key: kube.Key) -> Iterator[kube.Key]:
    """VirtualMachines that refer to this class or network."""
    for vm_key, vm in world.store.all(VMS.plural):
        names = {vm["spec"].get("classRef", {}).get("name")} | {
            interface["networkRef"]["name"] for interface in vm["spec"].get("networks", ())
        }
        if key.name in names:
            yield vm_key


def _keys(world: World, *collections: kube.Collection) -> Iterator[kube.Key]:
    for where in collections:
        yield from (key for key, _ in world.store.all(where.plural))
