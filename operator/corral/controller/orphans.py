"""Orphans: what hosts report that carries our mark and has no Instance, by whose it is and by the addresses it holds.

Kept current from the store. `controller.claim` takes back what still has its VirtualMachine, and gives nobody else an
address that an orphan holds; nothing here removes one.
"""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from dataclasses import dataclass
from typing import TypeVar

from corral import kube, store
from corral.api import objects
from corral.api.v1alpha1 import host, virtualmachine

InnerT = TypeVar("InnerT")
ValueT = TypeVar("ValueT")


@dataclass(frozen=True, slots=True)
class Lost:
    """What is on a host of a VirtualMachine whose Instance is lost."""

    host: str
    epoch: int
    addresses: tuple[virtualmachine.PlacedAddress, ...]
    has_domain: bool


class Orphans:
    """What all hosts report; `states` is the plural of HostState, `host_prefix` how the namespaces of hosts begin."""

    def __init__(self, known: store.Store, *, states: str, host_prefix: str) -> None:
        self._states = states
        self._host_prefix = host_prefix
        self._lost: defaultdict[str, dict[str, Lost]] = defaultdict(dict)
        self._holders: defaultdict[str, dict[tuple[str, str], None]] = defaultdict(dict)
        self._counts: dict[str, int] = {}
        known.listen(self._changed)

    def of(self, uid: str) -> Lost | None:
        """What is left of this VirtualMachine: of several, what was placed last, and then what has a guest."""
        found = self._lost.get(uid, {}).values()
        return max(found, key=lambda one: (one.epoch, one.has_domain, one.host), default=None)

    def holder(self, address: str) -> str | None:
        """The uid of the VirtualMachine that an orphan with this address was made for."""
        return next((uid for uid, _ in self._holders.get(address, ())), None)

    def has_any_of(self, prefix: str) -> bool:
        """Whether an orphan has an address of the prefix."""
        network = ipaddress.ip_network(prefix)
        return any(ipaddress.ip_address(address) in network for address in self._holders)

    @property
    def counts(self) -> dict[str, int]:
        """How many orphans there are, by the names of the hosts that have any."""
        return {name: count for name, count in self._counts.items() if count}

    def _changed(self, key: kube.Key, old: kube.Object | None, new: kube.Object | None) -> None:
        if key.plural != self._states or key.namespace != f"{self._host_prefix}{key.name}":
            return
        for one in _reported(old):
            _drop(self._lost, one.uid, key.name)
            for has in one.addresses:
                _drop(self._holders, has.address, (one.uid, key.name))
        for one in _reported(new):
            self._lost[one.uid][key.name] = Lost(key.name, one.epoch, one.addresses, "domain" in one.kinds)
            for has in one.addresses:
                self._holders[has.address][one.uid, key.name] = None
        self._counts[key.name] = 0 if new is None else objects.status_of(new, host.HostStateStatus).orphan_count


def _drop(kept: dict[str, dict[InnerT, ValueT]], key: str, inner: InnerT) -> None:
    """Leave nothing empty behind."""
    of_key = kept.get(key, {})
    of_key.pop(inner, None)
    if not of_key:
        kept.pop(key, None)


def _reported(state: kube.Object | None) -> tuple[host.Orphan, ...]:
    return () if state is None else objects.status_of(state, host.HostStateStatus).orphans
