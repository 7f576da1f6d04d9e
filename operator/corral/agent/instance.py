"""One Instance, reconciled: the host is made to look like it, and its status says what came of that.

`agent.process` hands every change of an Instance, of a guest and of an image to the queue, and the queue calls
`reconcile`. What is destroyed was seen with a deletionTimestamp; an Instance that is merely not there destroys nothing.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from corral import kube, store
from corral.agent import desired
from corral.agent.guest import Guests
from corral.agent.kept import Kept, NotKept
from corral.agent.memory import Memory
from corral.agent.reports import Reports
from corral.api import objects
from corral.api.v1alpha1 import instance
from corral.conclude import instance as conclude

INSTANCES = kube.collection(instance.RESOURCE)
OWNER = "owner"
"""The store's index of Instances by the uid of their owner."""

SETTLED_WITHIN = 1.0
"""What is done within this many seconds is reported once, done."""

_FIRST_RETRY, _LONGEST_RETRY = 0.5, 30.0
_ANEW = 0.1
_NOT_FOUND = 404
_TURN = conclude.Room(holds=False, reason=conclude.WAITING_FOR_EARLIER, look_again=1.0)
_BEHIND = conclude.Outcome(
    image=_TURN, storage=_TURN, seed=_TURN, link=_TURN, routing=_TURN, dhcp=_TURN, hypervisor=_TURN
)

log = structlog.get_logger(__name__)

Instance = objects.Object[instance.InstanceSpec, instance.InstanceStatus]


@dataclass(frozen=True, slots=True)
class Clock:
    """Seconds that only ever grow, and the time of day."""

    monotonic: Callable[[], float]
    now: Callable[[], datetime.datetime]


class Instances:
    """The Instances of one host, by name `host`."""

    def __init__(self, api: kube.Kube, known: store.Store, guests: Guests, kept: Kept, host: str, clock: Clock) -> None:
        self._api = api
        self._store = known
        self._guests = guests
        self._host = host
        self._clock = clock
        self._kept = kept
        self._reports = Reports(api, known, INSTANCES, clock.monotonic)
        self._memories: dict[kube.Key, Memory] = {}
        self.is_current = True
        """False while the Instances are what was kept, because the API server could not be asked yet."""

    async def reconcile(self, key: kube.Key) -> float | None:
        """One pass; returns in how many seconds to look again. Raises `kube.ApiError`, for the queue to try again."""
        if self._store.is_doubtful(key):
            await self._ask(key)
        obj = self._store.get(key)
        if obj is None:
            self._memories.pop(key, None)
            return None
        memory = self._memories.setdefault(key, Memory())
        memory.take_up(obj["metadata"].get("generation", 0))
        if not self.is_current and not await self._may_go_on(obj):
            return None
        try:
            if "deletionTimestamp" in obj["metadata"]:
                return await self._remove(key, obj, memory)
            return await self._converge(obj, memory)
        except (kube.ApiConflict, kube.ApiRefused) as error:
            if not isinstance(error, kube.ApiConflict) and error.status != _NOT_FOUND:
                raise
            # It is another one than we know, or gone: only the API server can tell.
            log.info("the Instance changed meanwhile", instance=str(key), why=error.message)
            await self._ask(key)
            return _ANEW

    async def _converge(self, obj: kube.Object, memory: Memory) -> float | None:
        asked = _asked(obj, self._host)
        try:
            parsed = objects.parsed(obj, instance.InstanceSpec, instance.InstanceStatus)
            desired.check(parsed.spec)
        except objects.NotUnderstood as error:
            before = objects.status_of(obj, instance.InstanceStatus)
            told = conclude.not_understood(str(error), asked, before, self._clock.now())
            return await self._report(obj, told, None, memory)
        if self._is_behind(obj):
            outcome = _BEHIND
        else:
            await self._keep(obj)
            outcome = await self._guests.converge(parsed.spec, memory)
        return await self._report(obj, self._told(outcome, asked, parsed.status), outcome, memory)

    async def _remove(self, key: kube.Key, obj: kube.Object, memory: Memory) -> float | None:
        asked = _asked(obj, self._host, removed=True)
        if not self._is_behind(obj):
            await self._keep(obj)
            outcome = await self._guests.remove(obj["spec"]["owner"]["uid"], asked.grace, memory)
            if not outcome.holds:
                before = objects.status_of(obj, instance.InstanceStatus)
                return await self._report(obj, self._told(outcome, asked, before), outcome, memory)
            await self._kept.forget(obj["spec"]["owner"]["uid"])
        finalizers = obj["metadata"].get("finalizers", [])
        left = [finalizer for finalizer in finalizers if finalizer != instance.FINALIZER]
        if len(left) < len(finalizers):
            version = obj["metadata"]["resourceVersion"]
            body = {"metadata": {"finalizers": left, "resourceVersion": version}}
            answer = await self._api.patch(INSTANCES, obj, body)
            log.info("nothing is left of the guest", instance=str(key))
            if left:
                self._store.put(INSTANCES, answer)
            else:
                self._store.settle(INSTANCES, key, None)
                self._memories.pop(key, None)
        return None

    async def _may_go_on(self, obj: kube.Object) -> bool:
        """Whether what was kept is enough to act on: never to remove, and to start only what says so."""
        spec = obj["spec"]
        if "deletionTimestamp" in obj["metadata"]:
            return False
        if spec.get("runStrategy") == "Halted" or spec.get("startWithoutAPI"):
            return True
        return await self._guests.runs(spec["owner"]["uid"])

    async def _keep(self, obj: kube.Object) -> None:
        try:
            await self._kept.keep(obj)
        except NotKept as error:
            # Its guest need not wait for that; the next pass tries again.
            log.warning("an Instance is not kept for a time without API server", why=str(error))

    def _is_behind(self, obj: kube.Object) -> bool:
        """Whether an earlier placement of the same owner still stands here: the guest is its until it is gone."""
        same = self._store.by(INSTANCES.plural, OWNER, obj["spec"]["owner"]["uid"])
        return any(other["spec"]["epoch"] < obj["spec"]["epoch"] for other in same)

    def _told(
        self, outcome: conclude.Outcome, asked: conclude.Asked, before: instance.InstanceStatus
    ) -> conclude.Concluded:
        return conclude.conclude(outcome, asked, before, self._clock.now())

    async def _report(
        self, obj: kube.Object, told: conclude.Concluded, outcome: conclude.Outcome | None, memory: Memory
    ) -> float | None:
        """Write what is new, unless it will soon be otherwise; and say when to look again."""
        waits = [told.look_again, *_waits(outcome, memory)]
        now = self._clock.monotonic()
        if told.is_settled:
            memory.unsettled_since = None
        elif memory.unsettled_since is None:
            memory.unsettled_since = now
        early = None if memory.unsettled_since is None else memory.unsettled_since + SETTLED_WITHIN - now
        if early is not None and early > 0 and not told.is_final:
            waits.append(early)
        else:
            waits.append(await self._reports.write(obj, told.status.wire()))
        return min((wait for wait in waits if wait is not None), default=None)

    async def _ask(self, key: kube.Key) -> None:
        asked, before = self._store.ask(key), self._store.get(key)
        self._store.settle(INSTANCES, key, await self._api.get(INSTANCES, key.namespace, key.name), asked)
        if before is not None and self._store.get(key) is None:
            await self._kept.disown(before)


def _asked(obj: kube.Object, host: str, *, removed: bool = False) -> conclude.Asked:
    """What is asked for, of a spec that may not be understood."""
    spec = obj["spec"]
    owner = spec["owner"]
    return conclude.Asked(
        generation=obj["metadata"].get("generation", 0),
        running=spec.get("runStrategy") != "Halted",
        grace=float(spec.get("terminationGracePeriodSeconds", 0)),
        names={"namespace": owner["namespace"], "name": owner["name"], "host": host},
        removed=removed,
    )


def _waits(outcome: conclude.Outcome | None, memory: Memory) -> list[float | None]:
    rooms = () if outcome is None else outcome.rooms
    if not any(room.retry for room in rooms):
        memory.failures = 0
        return [room.look_again for room in rooms]
    delay = min(_FIRST_RETRY * 2.0 ** min(memory.failures, 16), _LONGEST_RETRY)
    memory.failures += 1
    return [delay, *(room.look_again for room in rooms)]
