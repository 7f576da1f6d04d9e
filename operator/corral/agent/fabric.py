"""How the host speaks to its fabric, kept as its HostState says. `agent.process` runs one beside the guests' passes.

It belongs to no guest: FRR is told something new when the host's blocks or neighbors change, and a guest waits for
nothing here. It looks every few seconds until every session is established, and then as seldom as at everything else;
what changed of what is told is told at once, numbers of prefixes at most once a minute.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from corral import kube
from corral.agent.host import HOST_STATES
from corral.agent.rooms import Rooms
from corral.agent.settle import Account, settle
from corral.api import objects
from corral.api.v1alpha1 import host
from corral.conclude import fabric as conclude
from corral.conclude.instance import Room
from corral_drivers import errors
from corral_drivers.bgp import exports, model, plan

QUICK, RETRY, SLOW = 2.0, 5.0, 30.0
"""Seconds between two looks: while a session is missing, where FRR does not answer, and where nothing is to be done."""

ASKED_EVERY = 0.1
"""Seconds between two times that FRR is asked what it announces: a thousand prefixes are 0.07 s of work."""

TOLD_EVERY = 60.0
"""Seconds in which numbers of prefixes are told once: they change with every guest of the whole cloud."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Calls:
    """Whom it calls: `tell` when its report has changed, `put_back` when it put back what somebody changed by hand."""

    tell: Callable[[], None]
    put_back: Callable[[str], None]
    clock: Callable[[], float]


class Fabric:
    """The BGP room of one host. `state` is what the host was known to be at the process's start."""

    def __init__(self, made: Rooms, state: host.HostStateSpec, calls: Calls) -> None:
        self._bgp = made.bgp
        self._routing = made.routing
        self._state = state
        self._calls = calls
        self._changed = asyncio.Event()
        self._held: host.HostStateSpec | None = None
        self._told_at = float("-inf")
        self._speaker: model.Speaker | None = None
        self._suspects = frozenset[str]()
        self._announced = frozenset[str]()
        self._asked_at = float("-inf")
        self._said: host.HostStateSpec | None = None
        self._lock = asyncio.Lock()
        self.report = None if state.bgp is None else conclude.UNSEEN
        """What is told; None where the host speaks no BGP."""

    def took(self, key: kube.Key, _old: kube.Object | None, new: kube.Object | None) -> None:
        """Take up a HostState that came into the store; what is not understood changes nothing."""
        if key.plural != HOST_STATES.plural or new is None:
            return
        with contextlib.suppress(objects.NotUnderstood):
            spec = objects.parsed(new, host.HostStateSpec, host.HostStateStatus).spec
            # Things of another Host or Cloud are not this process's to touch.
            if spec != self._state and (spec.cloud, spec.host) == (self._state.cloud, self._state.host):
                self._state = spec
                if spec.bgp is not None and self.report is None:
                    self.report = conclude.UNSEEN
                self._changed.set()

    def wake(self) -> None:
        """Look now."""
        self._changed.set()

    async def keep(self) -> None:
        """Look at it again and again, until cancelled."""
        while True:
            self._changed.clear()
            again = await self.look()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), again)

    async def heed(self) -> None:
        """Say to the fabric what the HostState says by now: who reports that it was heeded calls this before."""
        if self._said != self._state:
            await self.look()

    async def look(self) -> float:
        """One pass; in how many seconds the next one is due."""
        async with self._lock:
            return await self._look()

    async def _look(self) -> float:
        state = self._said = self._state
        if state.bgp is None:
            await self._fall_silent()
            return SLOW
        room = await self._converge(state)
        sessions = await self._sessions() if room.holds else None
        speaker = self._speaker
        found = conclude.Found(room, sessions, await self._strays(speaker) if sessions and speaker else ())
        self._tell(found)
        if room.retry:
            return RETRY
        is_settled = not room.holds or all(one.is_established for one in found.sessions or ())
        return SLOW if is_settled else QUICK

    async def announces(self, address: str) -> bool | None:
        """Whether the fabric is told how to reach this address of a guest; None where the host speaks no BGP.

        FRR is asked about an address that was not announced when it was asked last, and for all guests together at most
        every `ASKED_EVERY` seconds. Raises the driver's three errors.
        """
        if self._state.bgp is None:
            return None
        if self._speaker is None:
            return False
        carrier = exports.carrier(self._speaker, address)
        if carrier not in self._announced and self._calls.clock() >= self._asked_at + ASKED_EVERY:
            await self._ask()
        return carrier in self._announced

    async def _ask(self) -> frozenset[str]:
        self._asked_at = self._calls.clock()
        self._announced = await self._bgp.announced()
        return self._announced

    async def _converge(self, state: host.HostStateSpec) -> Room:
        speaker = _speaker(state)
        account = Account("the host's fabric")
        room = await account.room(
            self._settle(speaker, account, take_over=state.bgp is not None and state.bgp.take_over)
        )
        for name in account.put_back({"bgp"} if self._held == state else ()):
            self._calls.put_back(name)
        account.close()
        self._held = state if room.holds else None
        self._speaker = speaker if room.holds else None
        return room

    async def _settle(self, speaker: model.Speaker | None, account: Account, *, take_over: bool) -> Room:
        desired = self._bgp.render(speaker, take_over=take_over)
        return await settle(
            self._bgp.observe,
            lambda observed: plan.plan(desired, observed),
            account.noting("bgp", self._bgp.apply),
            reason="FrrRefuses",
        )

    async def _fall_silent(self) -> None:
        """Take back what is ours, if anything is: a host without FRR has nothing to say, and nobody to hear it."""
        self._speaker = self._held = None
        account = Account("the host's fabric")
        with contextlib.suppress(errors.DriverError):
            await self._settle(None, account, take_over=False)
        if self.report is not None:
            self.report = None
            self._calls.tell()

    async def _sessions(self) -> tuple[model.Session, ...] | None:
        try:
            return await self._bgp.sessions()
        except errors.DriverError as error:
            log.warning("the sessions could not be looked at", cause=error.cause.value, why=error.message)
            return None

    async def _strays(self, speaker: model.Speaker) -> tuple[str, ...]:
        """What was announced and should not be at two looks in a row: a guest comes or goes while it is looked."""
        try:
            announced = await self._ask()
            routed = {route.prefix for route in (await self._routing.observe()).routes}
        except errors.DriverError as error:
            log.warning("what is announced could not be looked at", cause=error.cause.value, why=error.message)
            return ()
        suspects, self._suspects = self._suspects, exports.strays(speaker, announced, routed)
        return tuple(sorted(suspects & self._suspects))

    def _tell(self, found: conclude.Found) -> None:
        before, now = self.report, self._calls.clock()
        is_news = before is None or (found.room, found.strays) != (before.room, before.strays) or _news(found, before)
        is_time = before != found and now >= self._told_at + TOLD_EVERY
        if not is_news and not is_time:
            return
        self.report = found
        self._told_at = now
        self._calls.tell()


def _news(found: conclude.Found, before: conclude.Found) -> bool:
    """Whether more than numbers of prefixes is otherwise."""
    if found.sessions is None or before.sessions is None:
        return found.sessions is not before.sessions
    told = conclude.status(before, None)
    return conclude.differs(conclude.status(found, told), told)


def _speaker(state: host.HostStateSpec) -> model.Speaker | None:
    """What the host is to say; None where it speaks no BGP."""
    asked = state.bgp
    if asked is None:
        return None
    return model.Speaker(
        asn=asked.asn,
        addresses=asked.addresses,
        neighbors=tuple(model.Neighbor(one.interface or "", one.address or "", one.asn) for one in asked.neighbors),
        keepalive=asked.timers.keepalive,
        hold=asked.timers.hold,
        bfd=asked.bfd,
        blocks=state.blocks,
        pools=state.pools,
    )
