"""The ledger: what is taken of hosts and of addresses, kept current from the store, with what is being claimed on top.

Two VirtualMachines are placed at the same time by two workers; whoever chooses reserves in the same turn of the event
loop, so that the other one sees it. A reservation ends when the Instance and IPAllocations it is for are in the store,
or when the claim failed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from corral import kube, store
from corral.allocate import space as spaces
from corral.api.v1alpha1 import virtualmachineclass
from corral.place import costs

_USUAL = virtualmachineclass.USUAL.wire()


@dataclass(frozen=True, slots=True)
class Charge:
    """What one guest takes of one host."""

    host: str
    cost: costs.Cost


@dataclass(slots=True)
class Taken:
    """What all guests take of one host, in the units of `costs.Cost`."""

    guests: int = 0
    virtual_cpus: int = 0
    cpu: int = 0
    memory: int = 0
    emulation: int = 0

    def add(self, cost: costs.Cost, times: int) -> None:
        """Count a guest, or with -1 count it no more."""
        self.guests += times
        self.virtual_cpus += times * cost.virtual_cpus
        self.cpu += times * cost.cpu
        self.memory += times * cost.memory
        self.emulation += times * cost.emulation

    def of_all(self) -> costs.Cost:
        """What they cost together."""
        return costs.Cost(self.virtual_cpus, self.cpu, self.memory, self.emulation)


class Ledger:
    """Charges by VirtualMachine uid and epoch; addresses by the uid of who has them, of which `space` is told."""

    def __init__(
        self,
        objects: store.Store,
        space: spaces.Space,
        *,
        machines: str,
        instances: str,
        allocations: str,
        host_prefix: str,
    ) -> None:
        self._space = space
        self._machines, self._instances, self._allocations = machines, instances, allocations
        self._host_prefix = host_prefix
        self._charges: dict[tuple[str, int], Charge] = {}
        self._taken: defaultdict[str, Taken] = defaultdict(Taken)
        self._on_charge: list[Callable[[str], None]] = []
        self._on_claim: list[Callable[[str, str | None], None]] = []
        self._reserved: dict[str, tuple[tuple[str, int], tuple[str, ...]]] = {}
        self._stored: set[tuple[str, int]] = set()
        self._holders: dict[str, str] = {}
        self._claims: defaultdict[str, dict[str, None]] = defaultdict(dict)
        objects.listen(self._changed)

    def listen(self, charged: Callable[[str], None], claimed: Callable[[str, str | None], None]) -> None:
        """Call `charged(host)` where other guests are charged to a host, `claimed(uid, host)` where a claim begins or
        ends, the latter with None."""
        self._on_charge.append(charged)
        self._on_claim.append(claimed)

    def taken(self, host: str) -> Taken:
        """What guests take of this host."""
        return self._taken[host]

    def holder(self, address: str) -> str | None:
        """The uid of the VirtualMachine that has this address, or is about to."""
        return self._holders.get(address) or next(iter(self._claims.get(address, ())), None)

    def reserve(self, uid: str, epoch: int, charge: Charge, addresses: tuple[str, ...]) -> None:
        """Count this as taken until `release`; a new reservation of the same uid takes the old one's place."""
        self.release(uid)
        self._reserved[uid] = ((uid, epoch), addresses)
        for claimed in self._on_claim:
            claimed(uid, charge.host)
        if (uid, epoch) not in self._charges:
            self._charge((uid, epoch), charge)
        for address in dict.fromkeys(addresses):
            self._claims[address][uid] = None
            self._space.take(address)

    def release(self, uid: str) -> None:
        """The claim is over: what it became is counted by what is in the store."""
        reserved = self._reserved.pop(uid, None)
        if reserved is None:
            return
        key, addresses = reserved
        for claimed in self._on_claim:
            claimed(uid, None)
        if key not in self._stored:
            self._charge(key, None)
        for address in dict.fromkeys(addresses):
            claims = self._claims[address]
            claims.pop(uid, None)
            self._space.free(address)
            if not claims:
                del self._claims[address]

    def _changed(self, key: kube.Key, old: kube.Object | None, new: kube.Object | None) -> None:
        if key.plural == self._instances:
            self._instance_changed(old, new)
        elif key.plural == self._machines:
            # Its claim may have been cut short: what is gone claims nothing more.
            if old is not None and (new is None or new["metadata"]["uid"] != old["metadata"]["uid"]):
                self.release(old["metadata"]["uid"])
        elif key.plural == self._allocations:
            if old is not None:
                self._holders.pop(old["spec"]["address"], None)
                self._space.free(old["spec"]["address"])
            if new is not None:
                self._holders[new["spec"]["address"]] = new["spec"]["owner"]["uid"]
                self._space.take(new["spec"]["address"])

    def _instance_changed(self, old: kube.Object | None, new: kube.Object | None) -> None:
        if old is not None and (new is None or _key(new) != _key(old)):
            self._stored.discard(_key(old))
            self._charge(_key(old), None)
        if new is not None:
            self._stored.add(_key(new))
            host = new["metadata"]["namespace"].removeprefix(self._host_prefix)
            self._charge(_key(new), Charge(host, _cost(new["spec"])))

    def _charge(self, key: tuple[str, int], charge: Charge | None) -> None:
        old = self._charges.pop(key, None)
        if old == charge:
            # Most changes of an Instance are of its status.
            if charge is not None:
                self._charges[key] = charge
            return
        if old is not None:
            self._taken[old.host].add(old.cost, -1)
        if charge is not None:
            self._charges[key] = charge
            self._taken[charge.host].add(charge.cost, 1)
        for host in {one.host for one in (old, charge) if one is not None}:
            for charged in self._on_charge:
                charged(host)


def _cost(spec: Mapping[str, Any]) -> costs.Cost:
    promised = _USUAL | spec.get("overcommit", {})
    return costs.cost(
        spec["cpu"], spec["memory"], cpu_overcommit=promised["cpu"], memory_percent=promised["memoryPercent"]
    )


def _key(obj: Mapping[str, Any]) -> tuple[str, int]:
    return obj["spec"]["owner"]["uid"], obj["spec"]["epoch"]
