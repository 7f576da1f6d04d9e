"""A hypervisor in memory, for tests, demonstrations and benchmarks of thousands of guests; it passes the port's suite.

What outlives a driver, as libvirt and its guests do, is a `Machine`: two drivers on one machine see the same domains,
and one made anew recognises its own by their marks. A guest here has no processor: it runs from its start on, and obeys
its power button at once or never.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from corral_drivers import errors
from corral_drivers.hypervisor import admit, plan, port
from corral_drivers.hypervisor.model import Cause, Domain, Facts, Firmware, Mark, Observed, State

_MACHINES = {"pc": "pc-i440fx-7.2", "q35": "pc-q35-7.2"}
_FACTS = Facts(
    cpus=64,
    memory=256 << 30,
    accelerator="tcg",
    hypervisor="Simulated",
    version="1.0.0",
    uefi=Firmware("/simulated/code.fd", "/simulated/variables.fd"),
)

_OnGuest = plan.Start | plan.Resume | plan.Replug | plan.ShutDown | plan.PowerOff | plan.Undefine


@dataclass(slots=True)
class Guest:
    """A domain as the machine holds it. `mark` is None where it is nobody's."""

    name: str
    mark: Mark | None
    persistent: Domain | None
    active: Domain | None = None
    state: State = State.SHUT_OFF
    pid: int | None = None
    can_run_on: bool = True


@dataclass(slots=True)
class Machine:
    """The host behind the driver. `obeys_power_button` is how every guest on it reacts to `ShutDown`.

    It may be given a view of the interfaces that exist (name → index): a guest holds its taps as they were at its
    start, and one that was made anew since is not held.
    """

    facts: Facts = _FACTS
    obeys_power_button: bool = True
    index: Callable[[str], int | None] = lambda _: 1
    guests: dict[str, Guest] = field(default_factory=dict)
    _names: dict[str, str] = field(default_factory=dict)
    _held: dict[str, int | None] = field(default_factory=dict)
    _listeners: list[Callable[[str], None]] = field(default_factory=list)
    _pids: Iterator[int] = field(default_factory=lambda: itertools.count(1000))

    def put(self, domain: Domain, *, mark: Mark | None) -> None:
        """Define a domain behind the drivers' back, under a mark of one's choice or none."""
        self._store(domain, mark)

    def end(self, uuid: str, state: State = State.SHUT_OFF) -> None:
        """End a guest behind the drivers' back, as a crash or a kill does."""
        self._off(uuid, state)

    def pause(self, uuid: str, *, can_run_on: bool = True) -> None:
        """Pause a running guest behind the drivers' back; one that can't run on has to be started anew."""
        self.guests[uuid].can_run_on = can_run_on
        self._turn(uuid, State.PAUSED)

    def holder(self, name: str) -> str | None:
        """The uuid of the domain of this name."""
        return self._names.get(name)

    def holds(self, tap: str) -> bool:
        """Whether a living guest has the other end of this tap."""
        return tap in self._held and self._held[tap] == self.index(tap)

    def listen(self, heard: Callable[[str], None]) -> Callable[[], None]:
        """Call `heard(uuid)` at every change of a guest's life, until what is returned is called."""
        self._listeners.append(heard)
        return lambda: self._listeners.remove(heard)

    def apply(self, step: plan.Step) -> None:
        """Carry out a step on a domain that is known to be the caller's."""
        match step:
            case plan.Define(domain):
                self._define(domain)
            case plan.Start(uuid) if not self.guests[uuid].state.is_active:
                self._start(uuid)
            case plan.Resume(uuid) if self.guests[uuid].state is State.PAUSED and not self.guests[uuid].can_run_on:
                self._off(uuid, State.CRASHED)
            case plan.Resume(uuid) if self.guests[uuid].state is State.PAUSED:
                self._turn(uuid, State.RUNNING)
            case plan.Replug(uuid, tap) if self.guests[uuid].state.is_active:
                self._held[tap] = self.index(tap)
            case plan.ShutDown(uuid) if self.obeys_power_button and self.guests[uuid].state is State.RUNNING:
                self._off(uuid, State.SHUT_OFF)
            case plan.PowerOff(uuid) if self.guests[uuid].state.is_active:
                self._off(uuid, State.SHUT_OFF)
            case plan.Undefine(uuid):
                self._undefine(uuid)
            case _:
                pass

    def _define(self, domain: Domain) -> None:
        machine = _MACHINES.get(domain.machine, domain.machine)
        self._store(dataclasses.replace(domain, machine=machine), domain.mark)
        self._tell(domain.uuid)

    def _store(self, domain: Domain, mark: Mark | None) -> None:
        guest = self.guests.setdefault(domain.uuid, Guest(name=domain.name, mark=mark, persistent=None))
        guest.mark = mark
        guest.persistent = domain
        self._names[domain.name] = domain.uuid

    def _start(self, uuid: str) -> None:
        guest = self.guests[uuid]
        guest.active = guest.persistent
        guest.can_run_on = True
        guest.pid = next(self._pids)
        self._held |= {nic.tap: self.index(nic.tap) for nic in guest.persistent.interfaces} if guest.persistent else {}
        self._turn(uuid, State.RUNNING)

    def _off(self, uuid: str, state: State) -> None:
        guest = self.guests[uuid]
        for nic in guest.active.interfaces if guest.active else ():
            self._held.pop(nic.tap, None)
        guest.active = guest.pid = None
        guest.state = state
        if guest.persistent is None:
            self._forget(guest, uuid)
        self._tell(uuid)

    def _undefine(self, uuid: str) -> None:
        guest = self.guests[uuid]
        guest.persistent = None
        if not guest.state.is_active:
            self._forget(guest, uuid)
        self._tell(uuid)

    def _forget(self, guest: Guest, uuid: str) -> None:
        del self.guests[uuid]
        del self._names[guest.name]

    def _turn(self, uuid: str, state: State) -> None:
        self.guests[uuid].state = state
        self._tell(uuid)

    def _tell(self, uuid: str) -> None:
        for heard in tuple(self._listeners):
            heard(uuid)


class Simulated:
    """The port on a `Machine`; without one it gets its own, empty.

    `fail_at` is asked before each step, and the error that it returns is raised instead of carrying the step out.
    """

    def __init__(
        self,
        settings: port.Settings,
        *,
        machine: Machine | None = None,
        fail_at: Callable[[object], errors.DriverError | None] | None = None,
    ) -> None:
        self._settings = settings
        self._machine = Machine() if machine is None else machine
        self._fail_at = fail_at or (lambda _step: None)
        self._subscriptions: list[Callable[[], None]] = []

    async def facts(self) -> Facts:
        return self._machine.facts

    async def observe(self, uuid: str) -> Observed | None:
        return self._observed(uuid)

    async def observe_all(self) -> tuple[Observed, ...]:
        observed = (self._observed(uuid) for uuid in sorted(self._machine.guests))
        return tuple(one for one in observed if one is not None)

    async def apply(self, step: plan.Step) -> None:
        failure = self._fail_at(step)
        if failure is not None:
            raise failure
        if isinstance(step, plan.Define):
            self._admit(step.domain)
        elif not self._is_there(step):
            return
        self._machine.apply(step)

    def watch(self, changed: Callable[[str], None]) -> None:
        loop = asyncio.get_running_loop()

        def heard(uuid: str) -> None:
            # The loop of a test that is over may be closed.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(changed, uuid)

        self._subscriptions.append(self._machine.listen(heard))

    async def close(self) -> None:
        for unsubscribe in self._subscriptions:
            unsubscribe()
        self._subscriptions.clear()

    def _observed(self, uuid: str) -> Observed | None:
        guest = self._machine.guests.get(uuid)
        if guest is None or guest.mark is None or not self._owns(guest.mark):
            return None
        return Observed(uuid, guest.mark, guest.state, guest.persistent, guest.active, guest.pid)

    def _owns(self, mark: Mark | None) -> bool:
        return mark is not None and (mark.cloud, mark.host) == (self._settings.cloud, self._settings.host)

    def _is_there(self, step: _OnGuest) -> bool:
        guest = self._machine.guests.get(step.uuid)
        if guest is not None and not self._owns(guest.mark):
            raise errors.Rejected(Cause.NAME_TAKEN, f"{step}: the domain of this uuid is not ours")
        if guest is None and isinstance(step, plan.Start | plan.Resume | plan.Replug):
            raise errors.Rejected(Cause.FAILED, f"{step}: no such domain is defined")
        return guest is not None

    def _admit(self, domain: Domain) -> None:
        admit.check(domain)
        holder = self._machine.holder(domain.name)
        twin = self._machine.guests.get(domain.uuid)
        if holder not in (None, domain.uuid):
            raise errors.Rejected(Cause.NAME_TAKEN, f"define {domain.name}: domain {holder} has this name")
        if twin is not None and (twin.name != domain.name or not self._owns(twin.mark)):
            raise errors.Rejected(Cause.NAME_TAKEN, f"define {domain.name}: domain {twin.name} has this uuid")
