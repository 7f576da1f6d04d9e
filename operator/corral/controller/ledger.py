"""The ledger: what is taken of hosts and of addresses, kept current from the store, with what is being claimed on top.

Two VirtualMachines are placed at the same time by two workers; whoever chooses reserves in the same turn of the event
loop, so that the other one sees it. A reservation ends when the Instance and IPAllocations it is for are in the store,
or when the claim failed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from corral import kube, store
from corral.allocate import space as spaces


@dataclass(frozen=True, slots=True)
class Charge:
    """What one guest takes of one host; memory is in bytes."""

    host: str
    cpu: int
    memory: int


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
        self._memory: defaultdict[str, int] = defaultdict(int)
        self._reserved: dict[str, tuple[tuple[str, int], tuple[str, ...]]] = {}
        self._stored: set[tuple[str, int]] = set()
        self._holders: dict[str, str] = {}
        self._claims: defaultdict[str, dict[str, None]] = defaultdict(dict)
        objects.listen(self._changed)

    def memory_taken(self, host: str) -> int:
        """Bytes that guests take of this host."""
        return self._memory[host]

    def holder(self, address: str) -> str | None:
        """The uid of the VirtualMachine that has this address, or is about to."""
        return self._holders.get(address) or next(iter(self._claims.get(address, ())), None)

    def reserve(self, uid: str, epoch: int, charge: Charge, addresses: tuple[str, ...]) -> None:
        """Count this as taken until `release`; a new reservation of the same uid takes the old one's place."""
        self.release(uid)
        self._reserved[uid] = ((uid, epoch), addresses)
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
        if old is not None:
            self._stored.discard(_key(old))
            self._charge(_key(old), None)
        if new is not None:
            self._stored.add(_key(new))
            host = new["metadata"]["namespace"].removeprefix(self._host_prefix)
            self._charge(_key(new), Charge(host, new["spec"]["cpu"], new["spec"]["memory"]))

    def _charge(self, key: tuple[str, int], charge: Charge | None) -> None:
        old = self._charges.pop(key, None)
        if old is not None:
            self._memory[old.host] -= old.memory
        if charge is not None:
            self._charges[key] = charge
            self._memory[charge.host] += charge.memory


def _key(obj: Mapping[str, Any]) -> tuple[str, int]:
    return obj["spec"]["owner"]["uid"], obj["spec"]["epoch"]
