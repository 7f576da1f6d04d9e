"""The firewall of the host, as a whole and guest by guest: whichever is at it, the other waits.

A guest's pass adds and removes what is that guest's own. The whole is compared at the agent's start, when somebody else
changed our rules, and at every look at everything: in one transaction, so that a thousand guests whose rules are gone
are not let through one by one. It removes nothing of an owner that it does not know: only a guest's own removal does.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Sequence

import structlog

from corral import kube
from corral.agent import desired, settle
from corral.agent.kept import Kept
from corral.api import objects
from corral.api.v1alpha1 import host, instance
from corral.conclude.instance import HOLDS, Room
from corral_drivers import errors
from corral_drivers.firewall import model, plan, port, sets

FAILED = "FirewallFailed"
GATHERED_FOR = 0.05
"""Seconds between a change by somebody else and the look that it asks for: a rule set is changed in several steps."""

_FIRST_RETRY, _LONGEST_RETRY = 0.5, 30.0

log = structlog.get_logger(__name__)

Apply = Callable[[plan.Step], Awaitable[None]]


class Filter:
    """One host's firewall. `everyone` are its Instances as they are known now; `kept` has also those of orphans.

    `state` is what the host was known to be at the process's start: of it are the cloud's own prefixes, and the
    addresses by which guests behind NAT are seen.
    `put_back` is called when something was put back that somebody had changed.
    """

    def __init__(
        self,
        firewall: port.Firewall,
        everyone: Callable[[], Iterable[kube.Object]],
        kept: Kept,
        state: host.HostStateSpec,
        put_back: Callable[[], None] = lambda: None,
    ) -> None:
        self._firewall = firewall
        self._everyone = everyone
        self._kept = kept
        self._put_back = put_back
        self._state = state
        self._lock = asyncio.Lock()
        self._woken = asyncio.Event()
        self._settled: dict[str, tuple[model.Tap, ...]] = {}
        self._laid: model.Shared | None = None

    @property
    def _announced(self) -> tuple[str, ...]:
        return () if self._state.bgp is None else self._state.bgp.addresses

    @property
    def _shared(self) -> model.Shared:
        return model.Shared(prefixes=self._state.pools)

    def took(self, key: kube.Key, _old: kube.Object | None, new: kube.Object | None) -> None:
        """Take up a HostState that came into the store; what is not understood changes nothing."""
        if key.plural != host.HOST_STATE.kind.plural or new is None:
            return
        with contextlib.suppress(objects.NotUnderstood):
            spec = objects.parsed(new, host.HostStateSpec, host.HostStateStatus).spec
            # Things of another Host or Cloud are not this process's to touch.
            if (spec.cloud, spec.host) == (self._state.cloud, self._state.host):
                before, self._state = (self._announced, self._shared), spec
                if (self._announced, self._shared) != before:
                    self.wake()

    def wake(self) -> None:
        """Have the whole looked at anew."""
        self._woken.set()

    async def run(self) -> None:
        """Look at the whole whenever it is asked for, for ever."""
        failures = 0
        while True:
            await self._woken.wait()
            await asyncio.sleep(GATHERED_FOR)
            self._woken.clear()
            try:
                await self.whole()
                failures = 0
            except errors.DriverError as error:
                log.warning("the rules could not be looked at", cause=error.cause.value, why=error.message)
                self._woken.set()
                await asyncio.sleep(min(_FIRST_RETRY * 2.0**failures, _LONGEST_RETRY))
                failures = min(failures + 1, 16)

    async def whole(self) -> None:
        """Have everything as all Instances together ask for it. Raises what the driver raises."""
        async with self._lock:
            await self._whole()

    async def converge(self, spec: instance.InstanceSpec, apply: Apply) -> Room:
        """Let the guest's packets through, and no others; `apply` is the driver's, with an account of what it does."""
        owner, taps = spec.owner.uid, desired.filtered(spec, self._announced)
        if not self._announced and any(nic.nat for nic in spec.interfaces):
            detail = "The guest's network has NAT, and the host has no address to be seen by: see spec.bgp of the Host"
            return Room(holds=False, reason="NoAddressForNat", detail=detail, look_again=_LONGEST_RETRY)
        async with self._lock:
            if not (await self._firewall.observe(owner)).laid:
                await self._whole()
            self._settled.pop(owner, None)
            room = await settle.settle(
                lambda: self._firewall.observe(owner),
                lambda seen: plan.plan_guest(self._shared, taps, seen),
                apply,
                reason=FAILED,
            )
            if room.holds:
                self._settled[owner] = taps
            return room

    async def remove(self, owner: str) -> Room:
        """Take away all that is the owner's."""
        async with self._lock:
            self._settled.pop(owner, None)
            if not (await self._firewall.observe(owner)).laid:
                return HOLDS
            return await settle.settle(
                lambda: self._firewall.observe(owner),
                lambda seen: plan.plan_guest(self._shared, (), seen),
                self._firewall.apply,
                reason=FAILED,
            )

    async def _whole(self) -> None:
        shared, seen = self._shared, await self._firewall.observe()
        known = await self._known(laid=seen.laid)
        # A thousand guests are a tenth of a second of work, in which the loop does other things.
        wanted, todo = await asyncio.to_thread(_planned, shared, known, self._announced, seen)
        for step in todo.steps:
            await self._firewall.apply(step)
            if self._undoes(step, wanted, shared):
                log.warning("put back what was changed on the host", room="firewall", step=str(step))
                self._put_back()
        self._laid = shared
        self._settled |= wanted

    async def _known(self, *, laid: bool) -> Iterable[kube.Object]:
        """Every Instance; where the rules are gone, of orphans too, whose guests run on and should be heard."""
        known = list(self._everyone())
        if laid:
            return known
        owners = {obj["spec"]["owner"]["uid"] for obj in known}
        kept = await asyncio.to_thread(lambda: list(self._kept.all()))
        return known + [obj for obj in kept if obj["spec"]["owner"]["uid"] not in owners]

    def _undoes(self, step: plan.Step, wanted: dict[str, tuple[model.Tap, ...]], shared: model.Shared) -> bool:
        """Whether the step puts back what was once as it is asked for now, so that somebody must have changed it."""
        if isinstance(step, plan.Lay):
            return self._laid is not None
        if not isinstance(step, plan.Change):
            return False
        taps = {tap.interface for owner, some in wanted.items() if self._settled.get(owner) == some for tap in some}
        touched = {sets.interface(one) for one in (*step.remove, *step.add)}
        # What all share is somebody's doing only where it is asked for as it was.
        return not touched.isdisjoint(taps | ({""} if self._laid == shared else set()))


def _planned(
    shared: model.Shared, known: Iterable[kube.Object], announced: Sequence[str], seen: model.Observed
) -> tuple[dict[str, tuple[model.Tap, ...]], plan.Plan]:
    """The taps that are wanted, by owner, and what is to do; owners that nobody knows keep what they have."""
    wanted = _wanted(known, announced)
    there = {one.comment for one in seen.elements if one.of == "guests"}
    taps = [tap for owner in wanted for tap in wanted[owner]]
    return wanted, plan.plan(shared, taps, seen, keep=there - wanted.keys())


def _wanted(everyone: Iterable[kube.Object], announced: Sequence[str]) -> dict[str, tuple[model.Tap, ...]]:
    """The taps of guests that are to run, by owner; of others nothing changes until their own pass."""
    found = {}
    for obj in everyone:
        if "deletionTimestamp" in obj["metadata"] or obj["spec"].get("runStrategy") == "Halted":
            continue
        try:
            spec = objects.parsed(obj, instance.InstanceSpec, instance.InstanceStatus).spec
            desired.check(spec)
        except objects.NotUnderstood:
            # Its own pass says so; its guest stays as it is.
            continue
        found[spec.owner.uid] = desired.filtered(spec, announced)
    return found
