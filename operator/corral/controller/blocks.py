"""Blocks: which host has which part of a pool; made before their first address is given, and returned when empty.

A block is no lock: what makes an address unique is its IPAllocation. A block says which host announces its addresses
as one route, so that two hosts must never have the same: it is unique by its name, and returned only once its host has
said that it announces it no more. Everything here may be lost at any time; the IPBlocks tell it again.
"""

from __future__ import annotations

import structlog

from corral import allocate, kube
from corral.api import objects, schema
from corral.api.v1alpha1 import host, ippool
from corral.controller.world import BLOCKS, HOST, HOST_STATES, HOSTS, POOLS, World
from corral.resolve import instance as resolve_instance

GATHERED_FOR = 0.2
"""Seconds in which several new blocks of a host are one write of its HostState."""

_ASKED_AGAIN = 1.0
_MOST = 1024
"""How many prefixes a HostState has room for."""

log = structlog.get_logger(__name__)


def of_host(world: World, name: str) -> tuple[str, ...]:
    """The blocks that a host announces: those that are written, and not about to be returned."""
    written = {str(obj["spec"]["prefix"]) for obj in world.store.by(BLOCKS.plural, HOST, name)}
    kept = written & set(world.space.of_host(name))
    return tuple(allocate.ordered(kept)[:_MOST])


def of_pools(world: World) -> tuple[str, ...]:
    """Every prefix of every pool."""
    prefixes: set[str] = set()
    for _, raw in world.store.all(POOLS.plural):
        try:
            prefixes |= set(allocate.ordered(raw["spec"]["prefixes"]))
        except ValueError:
            continue
    if len(prefixes) > _MOST:
        log.error("pools have more prefixes than hosts can be told", prefixes=len(prefixes), told=_MOST)
    return tuple(allocate.ordered(prefixes)[:_MOST])


async def ensure(world: World, address: str, host_name: str) -> None:
    """The block of this address is written, where it is this host's. Raises `kube.ApiError`.

    `kube.ApiConflict` says that another controller gave it to another host: addresses have to be chosen anew.
    """
    at, pool = world.space.block_at(address), world.space.pool_at(address)
    if at is None or at[1] != host_name or pool is None:
        return
    prefix, name = at[0], allocate.block_name(at[0])
    key = kube.Key(BLOCKS.plural, "", name)
    async with world.pools.making(name):
        made = world.store.get(key)
        if made is None:
            made = await _make(world, name, {"prefix": prefix, "poolRef": {"name": pool}, "host": host_name})
    if made["spec"]["host"] != host_name:
        raise kube.ApiConflict(f"POST {BLOCKS.plural} {name}", "another host was given the block meanwhile")


async def _make(world: World, name: str, spec: kube.Object) -> kube.Object:
    try:
        made = await world.api.create(BLOCKS, {"metadata": {"name": name}, "spec": spec})
    except kube.ApiConflict:
        found = await world.api.get(BLOCKS, None, name)
        if found is None:
            raise
        made = found
    world.store.put(BLOCKS, made)
    log.info("a host has a new block of addresses", host=made["spec"]["host"], prefix=made["spec"]["prefix"])
    world.tell(kube.Key(HOSTS.plural, "", made["spec"]["host"]), GATHERED_FOR)
    return made


async def reconcile(world: World, key: kube.Key) -> float | None:
    """Return a block of which nobody has had an address for a while, once its host announces it no more."""
    raw = await world.current(BLOCKS, key)
    if raw is None:
        return None
    spec = objects.parsed(raw, ippool.IPBlockSpec, schema.Observed).spec
    holder = kube.Key(HOSTS.plural, "", spec.host)
    if not world.space.is_empty(spec.prefix) or world.orphans.has_any_of(spec.prefix):
        world.pools.is_used(key.name)
        if world.space.open(spec.prefix):
            world.tell(holder, GATHERED_FOR)
        return None
    if left := world.pools.idle_left(key.name):
        return left
    world.space.shut(spec.prefix)
    if not _is_let_go(world, spec.host, spec.prefix):
        world.tell(holder, GATHERED_FOR)
        return _ASKED_AGAIN if world.store.get(holder) is not None else None
    with world.doubting(BLOCKS, raw):
        await world.api.delete(BLOCKS, raw)
    world.store.settle(BLOCKS, key, None)
    log.info("a block of addresses is returned", host=spec.host, prefix=spec.prefix)
    return None


def _is_let_go(world: World, name: str, prefix: str) -> bool:
    """Whether the host has taken up that the block is not its any more, or nothing is left of the host.

    A HostState whose Host is gone is not written any more: the block stays until somebody removes its namespace.
    """
    state = world.store.get(kube.Key(HOST_STATES.plural, resolve_instance.namespace(name), name))
    if state is None:
        return world.store.get(kube.Key(HOSTS.plural, "", name)) is None
    if prefix in state["spec"].get("blocks", ()):
        return False
    said = objects.status_of(state, host.HostStateStatus)
    return said.marks is None and said.observed_generation >= int(state["metadata"]["generation"])
