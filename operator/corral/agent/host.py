"""The HostState of this machine, reconciled: what the machine has, holds, and cannot account for.

Orphans are what carries our mark and has no Instance. They are only ever listed here: nobody but a person, or the
controller by an Instance, decides about them.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import structlog

from corral import kube, store
from corral.agent.fetches import Fetches
from corral.agent.instance import INSTANCES, Clock
from corral.agent.rooms import Rooms
from corral.api import objects
from corral.api.v1alpha1 import host
from corral.conclude import hoststate as conclude
from corral_drivers import errors

HOST_STATES = kube.collection(host.HOST_STATE)
LOOKED_AT_EVERY = 5.0
"""Seconds between two looks at the whole machine, however much changes meanwhile: it costs as much as it has guests."""

log = structlog.get_logger(__name__)

ValueT = TypeVar("ValueT")


@dataclass(frozen=True, slots=True)
class Identity:
    """By which name the host's HostState is known, and which agent this is."""

    host: str
    agent_version: str


class HostStates:
    """The one HostState of this host. It is reconciled only once every Instance is in the store."""

    def __init__(
        self, api: kube.Kube, known: store.Store, rooms: Rooms, fetches: Fetches, identity: Identity, clock: Clock
    ) -> None:
        self._api = api
        self._store = known
        self._rooms = rooms
        self._fetches = fetches
        self._identity = identity
        self._clock = clock
        self._looked_at = float("-inf")

    async def reconcile(self, key: kube.Key) -> float | None:
        """One report, in one PATCH, and none when nothing changed."""
        if self._store.is_doubtful(key):
            question = self._store.ask(key)
            answer = await self._api.get(HOST_STATES, key.namespace, key.name)
            self._store.settle(HOST_STATES, key, answer, question)
        obj = self._store.get(key)
        if obj is None or key.name != self._identity.host:
            return None
        if (wait := self._looked_at + LOOKED_AT_EVERY - self._clock.monotonic()) > 0:
            return wait
        self._looked_at = self._clock.monotonic()
        generation = obj["metadata"].get("generation", 0)
        asked = conclude.Asked(generation, self._identity.host, self._identity.agent_version)
        status = conclude.conclude(
            await self._look(), asked, objects.status_of(obj, host.HostStateStatus), self._clock.now()
        )
        self._store.put(HOST_STATES, await self._api.patch_status(HOST_STATES, obj, status.wire()))
        return None

    async def _look(self) -> conclude.Found:
        faults: list[errors.DriverError] = []
        facts = await _tried(self._rooms.hypervisor.facts, faults)
        orphans, names = await self._orphans(faults)
        other: list[errors.DriverError] = []
        return conclude.Found(
            facts=facts,
            held=await _tried(self._rooms.images.observe, other),
            unfinished=tuple(self._fetches.unfinished()),
            orphans=orphans,
            names=names,
            fault=faults[0] if faults else None,
        )

    async def _orphans(
        self, faults: list[errors.DriverError]
    ) -> tuple[dict[str, frozenset[str]] | None, dict[str, str]]:
        """What has no Instance, neither before the look nor after it: what comes or goes meanwhile is no orphan."""
        before = self._owners()
        domains = await _tried(self._rooms.hypervisor.observe_all, faults)
        other: list[errors.DriverError] = []
        looks = {
            "disk": await _tried(self._rooms.storage.owners, other),
            "seed": await _tried(self._rooms.seeds.owners, other),
            "tap": await _tried(self._rooms.links.owners, other),
        }
        if domains is None or other:
            return None, {}
        kinds: defaultdict[str, set[str]] = defaultdict(set)
        for uid, kind in itertools.chain(
            ((domain.mark.uid, "domain") for domain in domains),
            ((uid, kind) for kind, owners in looks.items() for uid in owners or ()),
        ):
            kinds[uid].add(kind)
        known = before | self._owners()
        names = {domain.mark.uid: f"{domain.mark.namespace}/{domain.mark.name}" for domain in domains}
        return {uid: frozenset(found) for uid, found in kinds.items() if uid not in known}, names

    def _owners(self) -> frozenset[str]:
        return frozenset(obj["spec"]["owner"]["uid"] for _, obj in self._store.all(INSTANCES.plural))


async def _tried(look: Callable[[], Awaitable[ValueT]], faults: list[errors.DriverError]) -> ValueT | None:
    try:
        return await look()
    except errors.DriverError as error:
        log.warning("the host could not be looked at", cause=error.cause.value, why=error.message)
        faults.append(error)
        return None
