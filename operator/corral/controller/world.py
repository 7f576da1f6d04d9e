"""What every reconciler of the controller shares: the API, the store, the clock, and who to tell."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from corral import history, kube, store
from corral.allocate import space as spaces
from corral.api import objects, schema
from corral.api.v1alpha1 import (
    cloud,
    host,
    image,
    instance,
    ippool,
    network,
    references,
    virtualmachine,
    virtualmachineclass,
)
from corral.api.v1alpha1 import conditions as api_conditions
from corral.conclude import conditions
from corral.controller import candidates, census, cooling, guard, heartbeats, ledger, orphans, pools, rollcall
from corral.resolve import instance as resolve_instance

VMS = kube.collection(virtualmachine.RESOURCE)
CLASSES = kube.collection(virtualmachineclass.RESOURCE)
CLUSTER_IMAGES = kube.collection(image.CLUSTER_IMAGE)
IMAGES = kube.collection(image.IMAGE)
CLUSTER_NETWORKS = kube.collection(network.CLUSTER_NETWORK)
NETWORKS = kube.collection(network.NETWORK)
POOLS = kube.collection(ippool.IP_POOL)
ALLOCATIONS = kube.collection(ippool.IP_ALLOCATION)
BLOCKS = kube.collection(ippool.IP_BLOCK)
HOSTS = kube.collection(host.HOST)
HOST_STATES = kube.collection(host.HOST_STATE)
INSTANCES = kube.collection(instance.RESOURCE)
CLOUDS = kube.collection(cloud.RESOURCE)

CLOUD_KEY = kube.Key(CLOUDS.plural, "", cloud.NAME)

OWNER = "owner"
"""Index of Instances and IPAllocations by the namespace and name of their VirtualMachine."""

HOST = "host"
"""Index of VirtualMachines by the host that they are placed on, and of IPBlocks by the host that has them."""

WAITING = "waiting"
"""Index of VirtualMachines that wait for a host, an image, a network, an address: all under `WAITING`."""

WAITING_IN = "waiting-in"
"""Index of the same VirtualMachines by their namespace."""


def owner_of(obj: Mapping[str, Any]) -> str | None:
    """The VirtualMachine that an Instance or an IPAllocation says it stands for, as `namespace/name`."""
    owner = obj.get("spec", {}).get("owner")
    return f"{owner['namespace']}/{owner['name']}" if owner else None


def host_of(vm: Mapping[str, Any]) -> str | None:
    """The host that a VirtualMachine is placed on."""
    host_name: str | None = (vm.get("status", {}).get("placement") or {}).get("host")
    return host_name


def waits(vm: Mapping[str, Any]) -> str | None:
    """`WAITING` for a VirtualMachine that is not scheduled."""
    said = vm.get("status", {}).get("conditions", ())
    return None if any(one["type"] == "Scheduled" and one["status"] == "True" for one in said) else WAITING


def block_host(block: Mapping[str, Any]) -> str | None:
    """The host that a block is of."""
    return str(block["spec"]["host"])


def waits_in(vm: Mapping[str, Any]) -> str | None:
    """The namespace of a VirtualMachine that is not scheduled."""
    namespace: str = vm["metadata"]["namespace"]
    return namespace if waits(vm) else None


class _Conditions(schema.Observed):
    """What every status of ours has."""

    conditions: api_conditions.Conditions = ()


@dataclass(slots=True)
class World:
    """The controller's hands and eyes; `tell` puts a key on the queue, now or in some seconds."""

    api: kube.Kube
    store: store.Store
    history: history.History
    space: spaces.Space
    ledger: ledger.Ledger
    pools: pools.Pools
    cooling: cooling.Cooling
    orphans: orphans.Orphans
    roll_call: rollcall.RollCall
    guard: guard.Guard
    heartbeats: heartbeats.Heartbeats
    candidates: candidates.Candidates
    census: census.Census
    clock: Callable[[], datetime.datetime]
    tell: Callable[[kube.Key, float], None] = field(default=lambda _key, _after: None)
    user_data: set[str] = field(default_factory=set)
    """Uids of the Instances that are known to need no copy of user data any more."""

    async def current(self, where: kube.Collection, key: kube.Key) -> kube.Object | None:
        """The object as it is; where the store has none, or doubts it, the API server's word counts."""
        seen = self.store.get(key)
        if seen is not None and not self.store.is_doubtful(key):
            return seen
        asked = self.store.ask(key)
        answer = await self.api.get(where, key.namespace or None, key.name)
        self.store.settle(where, key, answer, asked)
        return self.store.get(key)

    def placed(self, namespace: str, name: str) -> list[kube.Object]:
        """The Instances that say they stand for this VirtualMachine, on hosts: elsewhere anybody may write one."""
        owned = self.store.by(INSTANCES.plural, OWNER, f"{namespace}/{name}")
        return [obj for obj in owned if obj["metadata"]["namespace"].startswith(resolve_instance.namespace(""))]

    async def write_status(
        self, where: kube.Collection, seen: Mapping[str, Any], status: schema.Observed, *, unchanged: bool = False
    ) -> None:
        """Write the status in one PATCH, or in none where it is there already; the store has it at once."""
        await self._write_status(where, seen, status.wire(), unchanged=unchanged)

    async def _write_status(
        self, where: kube.Collection, seen: Mapping[str, Any], status: kube.Object, *, unchanged: bool = False
    ) -> None:
        with self.doubting(where, seen):
            written = await self.api.patch_status(where, seen, status, unchanged=unchanged)
        self.store.put(where, written)
        if kube.is_overtaken(seen, written, status):
            self.tell(kube.key_of(where, written), 0.0)

    async def write_not_understood(self, where: kube.Collection, seen: kube.Object, detail: str) -> None:
        """Say of an object that the API admitted, and we can't read, why nothing is done about it.

        The rest of its status stays.
        """
        await self._tell(where, seen, conditions.not_understood(detail), ())

    async def write_refused(self, where: kube.Collection, seen: kube.Object, detail: str) -> None:
        """Say of an object that the API server refuses what has to be written for it. The rest of its status stays."""
        said = objects.status_of(seen, _Conditions).conditions
        kept = tuple(one for one in said if one.type not in conditions.SUMMARIES)
        await self._tell(where, seen, conditions.refused(detail), kept)

    async def _tell(
        self,
        where: kube.Collection,
        seen: kube.Object,
        facts: tuple[conditions.Fact, ...],
        kept: tuple[api_conditions.Condition, ...],
    ) -> None:
        """Write these facts and the conditions that are kept, and leave the rest of the status as it is."""
        metadata = seen["metadata"]
        before = objects.status_of(seen, _Conditions).conditions
        told = conditions.written(
            facts,
            before,
            generation=metadata["generation"],
            now=self.clock(),
            names={"namespace": metadata.get("namespace", ""), "name": metadata["name"]},
        )
        status = {
            **seen.get("status", {}),
            "observedGeneration": metadata["generation"],
            "conditions": [one.wire() for one in (*kept, *told)],
        }
        await self._write_status(where, seen, status)

    @contextlib.contextmanager
    def doubting(self, where: kube.Collection, seen: Mapping[str, Any]) -> Iterator[None]:
        """Around a write of what was seen: where it fails, the object is asked for before anybody acts on it again.

        It is another one than was seen, or the answer was lost and the write took effect.
        """
        try:
            yield
        except BaseException:
            self.store.doubt(kube.key_of(where, seen))
            raise


@dataclass(frozen=True, slots=True)
class StoreLookup:
    """Where references of VirtualMachines lead, in the store: `resolve.requirements.Lookup`.

    What the API admitted and we don't understand is as good as missing; its own status says why.
    """

    store: store.Store

    def vm_class(self, name: str) -> virtualmachineclass.VirtualMachineClassSpec | None:
        return self._spec(CLASSES, "", name, virtualmachineclass.VirtualMachineClassSpec)

    def image(self, ref: references.ImageRef, namespace: str) -> image.ImageSpec | None:
        if ref.kind == "Image":
            return self._spec(IMAGES, namespace, ref.name, image.ImageSpec)
        return self._spec(CLUSTER_IMAGES, "", ref.name, image.ImageSpec)

    def network(self, ref: references.NetworkRef, namespace: str) -> network.NetworkSpec | None:
        if ref.kind == "Network":
            return self._spec(NETWORKS, namespace, ref.name, network.NetworkSpec)
        return self._spec(CLUSTER_NETWORKS, "", ref.name, network.NetworkSpec)

    def pool(self, name: str) -> ippool.IPPoolSpec | None:
        return self._spec(POOLS, "", name, ippool.IPPoolSpec)

    def _spec(
        self, where: kube.Collection, namespace: str, name: str, spec: type[objects.SpecT]
    ) -> objects.SpecT | None:
        raw = self.store.get(kube.Key(where.plural, namespace, name))
        if raw is None:
            return None
        try:
            return objects.parsed(raw, spec, schema.Observed).spec
        except objects.NotUnderstood:
            return None
