"""The hypervisor's room of one guest: kept running, kept off, or removed. `agent.guest` says which, and when.

The plan is pure; what it asks of its caller is here: when the power button was pressed, and how soon a guest that keeps
stopping may be started again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from corral.agent import restarts, settle
from corral.agent.memory import Memory
from corral.conclude import instance as conclude
from corral_drivers.hypervisor import model, plan, port

REPLUGGED_EVERY = 5.0
"""Seconds between two times that a guest's NICs are plugged in anew: each cuts it off for a moment."""

Apply = Callable[[plan.Step], Awaitable[None]]
Unheld = Callable[[], Awaitable[frozenset[str]]]


class Guest:
    """One guest, for one pass. `seen` is what was observed last; `looked` whether anything was."""

    def __init__(
        self, hypervisor: port.Hypervisor, apply: Apply, uuid: str, memory: Memory, clock: Callable[[], float]
    ) -> None:
        self._hypervisor = hypervisor
        self._take = apply
        self._uuid = uuid
        self._memory = memory
        self._clock = clock
        self.seen: model.Observed | None = None
        self.looked = False
        self.restart_required: tuple[str, ...] = ()

    @property
    def is_active(self) -> bool:
        """Whether a process of the guest was seen living."""
        return self.seen is not None and self.seen.state.is_active

    @property
    def state(self) -> str:
        """What the guest was seen doing, in the API's words; empty where nobody could see."""
        if not self.looked:
            return ""
        return (model.State.SHUT_OFF if self.seen is None else self.seen.state).value

    async def look(self) -> conclude.Room:
        """Only look: the guest is well where it runs, and else waits for what comes before it."""
        await self._observe()
        runs = self.seen is not None and self.seen.state is model.State.RUNNING
        return conclude.HOLDS if runs else conclude.WAITS

    async def run(self, domain: model.Domain, unheld: Unheld) -> conclude.Room:
        """Define the domain as it should be and have it running.

        `unheld` looks which of its taps nobody holds. It is asked only once the guest was seen living: before, nobody
        could.
        """
        self._memory.button_pressed = None
        for _ in range(settle.ROUNDS + 1):
            await self._observe()
            if not self.is_active:
                self._memory.history = restarts.after_stop(self._memory.history, self._clock())
                if wait := restarts.pause(self._memory.history, self._clock()):
                    return conclude.Room(holds=False, reason="GuestKeepsStopping", look_again=wait)
            lost = await unheld() if self.is_active else frozenset()
            if lost and (wait := self._until_replug()):
                detail = f"The NIC on {', '.join(sorted(lost))} was plugged in again, and still does not hold it"
                return conclude.Room(holds=False, reason="HypervisorFailed", detail=detail, look_again=wait)
            todo = plan.plan(model.Desired(domain, model.Power.RUNNING, grace=0.0, unheld=lost), self.seen)
            self.restart_required = todo.restart_required
            if not todo:
                break
            await self._apply(todo)
        return self._running()

    def _until_replug(self) -> float:
        """How many seconds from now NICs may be plugged in anew."""
        last = self._memory.replugged
        return 0.0 if last is None else max(0.0, last + REPLUGGED_EVERY - self._clock())

    def _running(self) -> conclude.Room:
        if self.seen is None or self.seen.state is not model.State.RUNNING:
            return conclude.Room(holds=False, reason="Starting", look_again=1.0)
        if wait := restarts.trial(self._memory.history, self._clock()):
            return conclude.Room(holds=False, reason="GuestKeepsStopping", look_again=wait)
        return conclude.HOLDS

    async def stop(self, grace: float) -> conclude.Room:
        """Have the guest off, by its power button first; its definition stays as it is."""
        self._memory.history = restarts.History()
        await self._observe()
        known = None if self.seen is None else self.seen.persistent or self.seen.active
        if known is None:
            return conclude.HOLDS
        wanted = model.Desired(known, model.Power.STOPPED, grace)
        return await self._until_off(lambda pressed: plan.plan(wanted, self.seen, pressed=pressed))

    async def define(self, domain: model.Domain) -> conclude.Room:
        """Have a guest that is off defined as it should be at its next start."""
        wanted = model.Desired(domain, model.Power.STOPPED, grace=0.0)
        return await settle.settle(
            self._observe, lambda seen: plan.plan(wanted, seen), self._take, reason="HypervisorFailed"
        )

    async def remove(self, grace: float) -> conclude.Room:
        """Have the guest off, by its power button first, and then forgotten."""
        self._memory.history = restarts.History()
        await self._observe()
        return await self._until_off(
            lambda pressed: plan.plan_removal(self._uuid, self.seen, grace=grace, pressed=pressed)
        )

    async def _until_off(self, make: Callable[[plan.Pressed | None], plan.Plan]) -> conclude.Room:
        for _ in range(settle.ROUNDS + 1):
            todo = make(self._pressed())
            if not todo:
                break
            await self._apply(todo)
            await self._observe()
        if not self.is_active and not todo:
            return conclude.HOLDS
        return conclude.Room(holds=False, reason="ShuttingDown", look_again=todo.look_again or 1.0)

    def _pressed(self) -> plan.Pressed | None:
        if not self.is_active:
            self._memory.button_pressed = None
        if self._memory.button_pressed is None:
            return None
        first, last = self._memory.button_pressed
        return plan.Pressed(first=self._clock() - first, last=self._clock() - last)

    async def _apply(self, todo: plan.Plan) -> None:
        for step in todo.steps:
            await self._take(step)
            if isinstance(step, plan.Start):
                self._memory.history = restarts.after_start(self._memory.history, self._clock())
            elif isinstance(step, plan.ShutDown):
                first, _ = self._memory.button_pressed or (self._clock(), 0.0)
                self._memory.button_pressed = (first, self._clock())
            elif isinstance(step, plan.Replug):
                self._memory.replugged = self._clock()

    async def _observe(self) -> model.Observed | None:
        self.seen = await self._hypervisor.observe(self._uuid)
        self.looked = True
        return self.seen
