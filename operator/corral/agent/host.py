"""The HostState of this machine, reconciled: what the machine has, holds, and cannot account for.

Orphans are what carries our mark and has no Instance. They are only ever listed here: nobody but a person, or the
controller by an Instance, decides about them.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
import itertools
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import structlog

from corral import kube, store
from corral.agent.blocks import Blocks
from corral.agent.fetches import Fetches
from corral.agent.instance import INSTANCES, Clock, Instance
from corral.agent.kept import Kept, NotKept
from corral.agent.rooms import Rooms
from corral.api import objects
from corral.api.v1alpha1 import host, instance
from corral.conclude import fabric
from corral.conclude import hoststate as conclude
from corral_drivers import errors
from corral_drivers.hypervisor import model as hypervisor

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


async def _nobody() -> None:
    return


@dataclass(frozen=True, slots=True)
class Machine:
    """What is reported: what the rooms hold, what is fetched, and what was kept of Instances that are gone.

    And what it has for all its guests together: `blocks`, and how it stands with its `fabric`, None where it speaks no
    BGP.
    """

    rooms: Rooms
    fetches: Fetches
    kept: Kept
    blocks: Blocks
    marks: host.Marks
    fabric: Callable[[], fabric.Found | None] = lambda: None
    heed: Callable[[], Awaitable[None]] = _nobody
    """Says to the fabric what it is told by now, where it has not been said yet."""


class HostStates:
    """The one HostState of this host. It is reconciled only once every Instance is in the store.

    `sweep` compares the Instances in the store with a list of the moment.
    """

    def __init__(
        self,
        api: kube.Kube,
        known: store.Store,
        machine: Machine,
        identity: Identity,
        clock: Clock,
        sweep: Callable[[], Awaitable[None]],
    ) -> None:
        self._api = api
        self._store = known
        self._machine = machine
        self._identity = identity
        self._clock = clock
        self._sweep = sweep
        self._looked_at = float("-inf")
        self._answered = ""

    async def reconcile(self, key: kube.Key) -> float | None:
        """What the host has for itself, and one report, in one PATCH, and none when nothing changed."""
        if self._store.is_doubtful(key):
            await self._ask(HOST_STATES, key)
        obj = self._store.get(key)
        if obj is None or key.name != self._identity.host:
            return None
        again = await self._take_up(obj)
        report = await self._report(obj)
        return min((wait for wait in (again, report) if wait is not None), default=None)

    async def _take_up(self, obj: kube.Object) -> float | None:
        """Make of the spec what is the host's own, and keep it for a time without API server."""
        with contextlib.suppress(objects.NotUnderstood):
            spec = objects.parsed(obj, host.HostStateSpec, host.HostStateStatus).spec
            if (spec.cloud, spec.host) == (self._machine.marks.cloud, self._machine.marks.host):
                try:
                    await self._machine.kept.keep_host(spec)
                except NotKept as error:
                    log.warning("the host's state is not kept for a time without API server", why=str(error))
        # A block that is taken back is another host's as soon as this is reported.
        await self._machine.heed()
        return await self._machine.blocks.converge(obj["spec"].get("blocks", ()))

    async def _report(self, obj: kube.Object) -> float | None:
        roll_call = str(obj["spec"].get("rollCall", ""))
        wait = self._looked_at + LOOKED_AT_EVERY - self._clock.monotonic()
        if wait > 0 and roll_call == self._answered:
            return wait
        self._looked_at = self._clock.monotonic()
        if roll_call != self._answered:
            await self._list_anew()
        before, found = objects.status_of(obj, host.HostStateStatus), await self._look()
        # Who asks counts on what is told of orphans: where they could not be looked at, that is no answer yet.
        unanswered = roll_call != self._answered and found.orphans is None
        generation = before.observed_generation if unanswered else obj["metadata"].get("generation", 0)
        asked = conclude.Asked(generation, self._identity.host, self._identity.agent_version)
        status = conclude.conclude(found, asked, before, self._clock.now())
        self._store.put(HOST_STATES, await self._api.patch_status(HOST_STATES, obj, status.wire()))
        if unanswered:
            return LOOKED_AT_EVERY
        self._answered = roll_call
        return None

    async def _list_anew(self) -> None:
        """Know every Instance as of this moment, whatever the watch told. Raises `kube.ApiError`."""
        await self._sweep()
        for key, _ in self._store.all(INSTANCES.plural):
            if self._store.is_doubtful(key):
                await self._ask(INSTANCES, key)

    async def _ask(self, where: kube.Collection, key: kube.Key) -> None:
        asked = self._store.ask(key)
        self._store.settle(where, key, await self._api.get(where, key.namespace, key.name), asked)

    async def _look(self) -> conclude.Found:
        faults: list[errors.DriverError] = []
        facts = await _tried(self._machine.rooms.hypervisor.facts, faults)
        orphans = await self._orphans(faults)
        other: list[errors.DriverError] = []
        return conclude.Found(
            facts=facts,
            held=await _tried(self._machine.rooms.images.observe, other),
            unfinished=tuple(self._machine.fetches.unfinished()),
            orphans=orphans,
            fault=faults[0] if faults else None,
            fabric=self._machine.fabric(),
        )

    async def _orphans(self, faults: list[errors.DriverError]) -> dict[str, conclude.Orphaned] | None:
        """What has no Instance, neither before the look nor after it: what comes or goes meanwhile is no orphan."""
        before = self._owners()
        rooms = self._machine.rooms
        domains = await _tried(rooms.hypervisor.observe_all, faults)
        other: list[errors.DriverError] = []
        looks = {
            "disk": await _tried(rooms.storage.owners, other),
            "seed": await _tried(rooms.seeds.owners, other),
            "tap": await _tried(rooms.links.owners, other),
            # Rules that can't be read hide nobody who matters: a guest has a domain, a disk, or a tap.
            "rules": await _tried(rooms.firewall.owners, []),
            "dhcp": await _tried(rooms.dhcp.owners, other),
        }
        if domains is None or other:
            return None
        kinds: defaultdict[str, set[str]] = defaultdict(set)
        for uid, kind in itertools.chain(
            ((domain.mark.uid, "domain") for domain in domains),
            ((uid, kind) for kind, owners in looks.items() for uid in owners or ()),
        ):
            kinds[uid].add(kind)
        known = before | self._owners()
        orphans = {uid: conclude.Orphaned(frozenset(found)) for uid, found in kinds.items() if uid not in known}
        if not orphans:
            return {}
        kept = await asyncio.to_thread(_kept, self._machine.kept)
        marks = {domain.mark.uid: domain.mark for domain in domains}
        return {uid: _made_for(one, marks.get(uid), kept.get(uid)) for uid, one in orphans.items()}

    def _owners(self) -> frozenset[str]:
        return frozenset(obj["spec"]["owner"]["uid"] for _, obj in self._store.all(INSTANCES.plural))


class MarksDiffer(Exception):  # noqa: N818 - reads as what it says
    """What is on the machine was marked for another Host or Cloud than this one is now: nothing of it is touched."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"what is on this machine was made for another Host or Cloud than {name} is now: it is not touched"
        )


async def tell_marks(api: kube.Kube, raw: kube.Object, marks: host.Marks, now: datetime.datetime) -> None:
    """Say in the HostState what this machine's things are marked with, instead. Raises `kube.ApiError`."""
    before = objects.status_of(raw, host.HostStateStatus)
    asked = conclude.Asked(raw["metadata"].get("generation", 0), raw["metadata"]["name"], "")
    await api.patch_status(HOST_STATES, raw, conclude.marked(marks, asked, before, now).wire())


def _made_for(orphan: conclude.Orphaned, mark: hypervisor.Mark | None, kept: Instance | None) -> conclude.Orphaned:
    """The orphan with what its domain's mark and the Instance that was kept say of it."""
    if kept is not None:
        spec = kept.spec
        addresses = tuple((nic.name, address) for nic in spec.interfaces for address in nic.addresses)
        name = f"{spec.owner.namespace}/{spec.owner.name}"
        orphan = dataclasses.replace(orphan, name=name, epoch=spec.epoch, addresses=addresses)
    if mark is not None:
        orphan = dataclasses.replace(orphan, name=f"{mark.namespace}/{mark.name}", epoch=mark.epoch)
    return orphan


def _kept(kept: Kept) -> dict[str, Instance]:
    """What was kept, by owner; what is not understood says nothing."""
    found = {}
    for raw in kept.all():
        with contextlib.suppress(objects.NotUnderstood):
            one = objects.parsed(raw, instance.InstanceSpec, instance.InstanceStatus)
            found[one.spec.owner.uid] = one
    return found


async def _tried(look: Callable[[], Awaitable[ValueT]], faults: list[errors.DriverError]) -> ValueT | None:
    try:
        return await look()
    except errors.DriverError as error:
        log.warning("the host could not be looked at", cause=error.cause.value, why=error.message)
        faults.append(error)
        return None
