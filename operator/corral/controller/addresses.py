"""Addresses for a VirtualMachine on a host: those that it has, those that it asks for, and free ones for the rest.

`controller.claim` asks, and reserves what it is given in the same turn of the event loop.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass

from corral import allocate, kube
from corral.api.v1alpha1 import virtualmachine
from corral.conclude import conditions
from corral.conclude import virtualmachine as conclude
from corral.controller import orphans
from corral.controller.world import ALLOCATIONS, OWNER, World
from corral.resolve import requirements as resolve

_FAMILIES = {4: "IPv4", 6: "IPv6"}

PlacedAddress = virtualmachine.PlacedAddress


def choose(
    world: World, vm: conclude.VirtualMachine, needs: resolve.Requirements, host: str, lost: orphans.Lost | None
) -> tuple[PlacedAddress, ...] | conditions.Fact:
    """One address of each family for each interface; or why there is none. `lost` is what its guest runs with.

    The host is given the blocks that they are of, in memory: `blocks.ensure` writes them.
    """
    chosen: list[PlacedAddress] = []
    asker = _Asker(world, vm, host, {address for need in needs.interfaces for address in need.addresses})
    for need in needs.interfaces:
        had = [] if lost is None else [one for one in lost.addresses if one.interface == need.name]
        if taken := [one.address for one in had if world.ledger.holder(one.address) not in (None, vm.uid)]:
            detail = f"Its guest, whose record was lost, has {taken[0]}, which another VirtualMachine was given since"
            return conditions.false("Scheduled", "AddressTaken", detail)
        if had:
            chosen += had
            continue
        giving = [pool for pool in need.pools if world.space.gives(pool.name)]
        if not giving:
            return _overlaps(need, need.pools[0])
        for version in sorted({version for pool in giving for version in allocate.versions(pool.prefixes)}):
            found = asker.address(need, version)
            if isinstance(found, conditions.Fact):
                return found
            chosen.append(PlacedAddress(interface=need.name, address=found))
            asker.reserved.add(found)
    return tuple(chosen)


@dataclass(slots=True)
class _Asker:
    """Who asks for addresses; `reserved` are given to its interfaces already, or asked for by one of them."""

    world: World
    vm: conclude.VirtualMachine
    host: str
    reserved: set[str]

    def address(self, need: resolve.InterfaceNeed, version: int) -> str | conditions.Fact:
        """Of this family: the one that the interface has, the one that it asks for, or a free one of its pools."""
        for address in _held(self.world, self.vm, need.name):
            # After a backup was put back, a guest may run with it that was given it since.
            if allocate.version(address) == version and not self._is_anothers(address):
                return address
        for address in need.addresses:
            if allocate.version(address) == version:
                return self._asked(need, address)
        space = self.world.space
        for pool in need.pools:
            if offer := space.offer(pool.name, version, self.host, self._is_refused):
                return self._taken(offer.address, offer.block)
        for pool in need.pools:
            # The fabric has a route for this one address then, which is better than no guest.
            if offer := space.borrow(pool.name, version, self._is_refused):
                return offer.address
        return self._exhausted(need, version)

    def _taken(self, address: str, block: str | None) -> str:
        if block is not None:
            self.world.space.block(block, self.host)
        return address

    def _asked(self, need: resolve.InterfaceNeed, address: str) -> str | conditions.Fact:
        space, where = self.world.space, f"Interface {need.name} asks for {address}"
        pool = next((pool for pool in need.pools if allocate.contains(pool.prefixes, address)), None)
        if pool is None:
            network = f"{need.network_ref.kind} {need.network_ref.name}"
            prefixes = ", ".join(prefix for pool in need.pools for prefix in pool.prefixes)
            detail = f"{where}, which no IPPool of {network} has: they have {prefixes}"
            return conditions.false("Scheduled", "AddressNotInPool", detail[:800])
        if space.is_kept_back(pool.name, address):
            detail = f"{where}, the first or the last of its prefix in IPPool {pool.name}, which no guest gets"
            return conditions.false("Scheduled", "AddressNotInPool", detail)
        if not space.gives(pool.name):
            return _overlaps(need, pool)
        if self._is_anothers(address):
            return conditions.false("Scheduled", "AddressTaken", f"{where}, which {_who(self.world, self.vm, address)}")
        offer = space.asked(pool.name, address, self.host)
        return self._taken(offer.address, offer.block)

    def _is_refused(self, address: str) -> bool:
        return address in self.reserved or self._is_anothers(address)

    def _is_anothers(self, address: str) -> bool:
        """Whether another VirtualMachine has the address, or is about to, or its guest has that was lost."""
        holders = (self.world.ledger.holder(address), self.world.orphans.holder(address))
        return any(one not in (None, self.vm.uid) for one in holders)

    def _exhausted(self, need: resolve.InterfaceNeed, version: int) -> conditions.Fact:
        space, told = self.world.space, []
        for pool in need.pools:
            if space.gives(pool.name) and version in allocate.versions(pool.prefixes):
                resting = self.world.cooling.count(pool.name)
                rest = f", {resting} of them rest after their guests are gone" if resting else ""
                told.append(f"of IPPool {pool.name}, {space.count(pool.name, version)}{rest}")
        detail = f"No {_FAMILIES[version]} address is free for interface {need.name}: {'; '.join(told)}"
        return conditions.false("Scheduled", "PoolExhausted", detail[:800])


def _overlaps(need: resolve.InterfaceNeed, pool: resolve.PoolNeed) -> conditions.Fact:
    detail = f"Interface {need.name} gets no address of IPPool {pool.name}: an earlier pool has the same addresses"
    return conditions.false("Scheduled", "PoolOverlaps", detail)


def _held(world: World, vm: conclude.VirtualMachine, interface: str) -> Iterator[str]:
    """The addresses that the interface has by the ledger."""
    for obj in world.store.by(ALLOCATIONS.plural, OWNER, f"{vm.namespace}/{vm.name}"):
        if obj["spec"]["owner"]["uid"] == vm.uid and obj["spec"]["interface"] == interface:
            yield str(ipaddress.ip_address(obj["spec"]["address"]))


def _who(world: World, vm: conclude.VirtualMachine, address: str) -> str:
    """Who has the address, by name only within the own namespace: others' names are nobody's business."""
    seen = world.store.get(kube.Key(ALLOCATIONS.plural, "", allocate.ledger_name(address)))
    owner = {} if seen is None else seen["spec"]["owner"]
    if owner.get("namespace") != vm.namespace:
        return "another VirtualMachine has"
    if world.store.is_buried(owner["uid"]):
        return f"VirtualMachine {owner['name']} had, and which rests for a while"
    return f"VirtualMachine {owner['name']} has"
