"""Who may write: of several controllers the one that holds a Lease; the others stand by.

`controller.process` asks for the lead, and begins anew with each one. The Lease makes two writers rare, not impossible:
a request may be on its way when the lead goes over. That no guest runs twice rests on compare-and-set and on unique
names. The rules are those of Kubernetes' own components: https://kubernetes.io/docs/concepts/architecture/leases/.
"""

from __future__ import annotations

import asyncio
import datetime
import math
import socket
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from corral import deadlines, kube

NAMESPACE = "corral-system"
NAME = "corral-controller"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds. Between `stops_after` and `lasts` nobody writes, and what was sent before has its time to arrive."""

    lasts: float = deadlines.LEADER_LEASE
    stops_after: float = deadlines.LEADER_STOPS_AFTER
    renewed_every: float = deadlines.LEADER_RENEWED_EVERY
    asked_every: float = deadlines.LEADER_ASKED_EVERY

    @classmethod
    def of(cls, lasts: float) -> Times:
        """The others in proportion to how long the Lease lasts."""
        share = lasts / deadlines.LEADER_LEASE
        return cls(
            lasts,
            deadlines.LEADER_STOPS_AFTER * share,
            deadlines.LEADER_RENEWED_EVERY * share,
            deadlines.LEADER_ASKED_EVERY * share,
        )


@dataclass(frozen=True, slots=True)
class Clock:
    """Seconds that grow also while this process, or its machine, is stopped; and the time of day."""

    steady: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME)
    now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC)


def identity() -> str:
    """A name that no other process has: of the machine or the Pod, and a part that is new each time."""
    return f"{socket.gethostname()}_{uuid.uuid4().hex[:8]}"


@dataclass(slots=True)
class _Pulse:
    """A Lease as it was last seen to move: it tells who holds it, and our own clock how old that is."""

    lease: kube.Object
    since: float


class Leadership:
    """The lead of the controller `who`. `api` is a connection of its own: a renewal waits behind no other write."""

    def __init__(self, api: kube.Kube, who: str, times: Times | None = None, clock: Clock | None = None) -> None:
        self._api = api
        self._who = who
        self._times = times or Times()
        self._clock = clock or Clock()
        self._pulse: _Pulse | None = None
        self._renewed = -math.inf
        """When the last renewal was sent that was answered; long ago where this controller does not lead."""
        self._said = ""

    def may_write(self) -> bool:
        """Whether nobody else can lead now. Ask right before a write is sent."""
        return self._clock.steady() - self._renewed < self._times.stops_after

    async def acquire(self) -> None:
        """Stand by until this controller leads; where the API server does not answer, too."""
        leads = await self._ask()
        while not leads:
            await asyncio.sleep(self._times.asked_every)
            leads = await self._ask()

    async def keep(self) -> None:
        """Renew until the lead is lost: to another, or because nobody could have been told for too long.

        Meanwhile `may_write` may be False for a while; where it is True again, nobody else led.
        """
        pause = self._times.renewed_every
        while self._leads:
            await asyncio.sleep(pause)
            pause = self._times.renewed_every if await self._renew() else self._times.asked_every
        self._renewed = -math.inf
        log.warning("this controller leads no more: it writes nothing, and stands by", held_by=self._holder)

    async def release(self) -> None:
        """Let another controller lead at once, where this one does; nothing of this one may write any more."""
        led, self._renewed = self._leads, -math.inf
        if not led or self._pulse is None:
            return
        try:
            async with asyncio.timeout(self._times.asked_every):
                await self._write(self._pulse.lease, {"holderIdentity": None, "leaseDurationSeconds": 1})
        except (kube.ApiError, TimeoutError) as error:
            log.warning("the lead was not released: another controller takes over by and by", why=_told(error))
        else:
            log.info("this controller released the lead")

    @property
    def _leads(self) -> bool:
        return self._clock.steady() - self._renewed < self._times.lasts

    @property
    def _holder(self) -> str:
        return "" if self._pulse is None else str(self._pulse.lease["spec"].get("holderIdentity") or "")

    async def _ask(self) -> bool:
        """Whether this controller leads now."""
        try:
            async with asyncio.timeout(self._times.stops_after):
                return await self._take()
        except (kube.ApiError, TimeoutError) as error:
            self._say("this controller could not ask who leads, and asks again", why=_told(error))
            return False

    async def _take(self) -> bool:
        self._see(await self._api.get(kube.LEASES, NAMESPACE, NAME))
        sent = self._clock.steady()
        spec: kube.Object = self._renewal() | {
            "holderIdentity": self._who,
            "leaseDurationSeconds": math.ceil(self._times.lasts),
        }
        spec["acquireTime"] = spec["renewTime"]
        pulse = self._pulse
        if pulse is None:
            body = {"metadata": {"name": NAME, "namespace": NAMESPACE}, "spec": spec}
            self._see(await self._api.create(kube.LEASES, body))
        elif self._is_free(pulse, sent):
            taken = int(pulse.lease["spec"].get("leaseTransitions") or 0)
            await self._write(pulse.lease, spec | {"leaseTransitions": taken + 1})
        else:
            self._say("this controller stands by: another one leads", held_by=self._holder)
            return False
        self._renewed = sent
        self._said = ""
        log.info("this controller leads", identity=self._who)
        return True

    def _is_free(self, pulse: _Pulse, now: float) -> bool:
        """Whether nobody holds the Lease: clocks of machines need not agree, only how fast they go."""
        lasts = float(pulse.lease["spec"].get("leaseDurationSeconds") or self._times.lasts)
        return self._holder in ("", self._who) or now - pulse.since > lasts

    async def _renew(self) -> bool:
        """One renewal. False where it failed, or the Lease is another's: then the lead is lost."""
        if self._pulse is None or not self._leads:
            return False
        sent = self._clock.steady()
        try:
            async with asyncio.timeout(self._times.renewed_every):
                try:
                    await self._write(self._pulse.lease, self._renewal())
                except (kube.ApiConflict, kube.ApiRefused):
                    # Another holds it; or an answer to this one was lost, and what it wrote is there.
                    self._see(await self._api.get(kube.LEASES, NAMESPACE, NAME))
                    if self._holder != self._who:
                        self._renewed = -math.inf
                    return False
        except (kube.ApiError, TimeoutError) as error:
            log.warning("the lead was not renewed; it is tried again", why=_told(error))
            return False
        self._renewed = sent
        return True

    def _renewal(self) -> kube.Object:
        return {"renewTime": self._clock.now().astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")}

    async def _write(self, lease: kube.Object, spec: kube.Object) -> None:
        """Only onto the Lease as it was seen: of two that take it one loses."""
        version = {"resourceVersion": lease["metadata"]["resourceVersion"]}
        self._see(await self._api.patch(kube.LEASES, lease, {"metadata": version, "spec": spec}))

    def _see(self, lease: kube.Object | None) -> None:
        if lease is None:
            self._pulse = None
        elif self._pulse is None or _version(lease) != _version(self._pulse.lease):
            self._pulse = _Pulse(lease, self._clock.steady())

    def _say(self, what: str, **details: str) -> None:
        """Tell it once, and again only when it is otherwise."""
        said = f"{what} {details}"
        if said != self._said:
            log.warning(what, **details)
            self._said = said


def _version(lease: kube.Object) -> tuple[str, str]:
    return lease["metadata"]["uid"], lease["metadata"]["resourceVersion"]


def _told(error: BaseException) -> str:
    return str(error) or "the API server does not answer in time"
