"""What to do so that a domain becomes what it should be. Pure: clock and memory of the caller are arguments."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from corral_drivers import steps
from corral_drivers.hypervisor.model import Desired, Domain, Observed, Power, State

PRESSED_EVERY = 5.0
"""Seconds between two presses of the power button: a guest that still boots does not hear the first one."""

_FAMILIES = {"pc": "pc-i440fx-", "q35": "pc-q35-"}


@dataclass(frozen=True, slots=True)
class Define:
    """Store this definition; a living guest keeps what it runs with until its next start."""

    domain: Domain

    def __str__(self) -> str:
        return f"define {self.domain.name}"


@dataclass(frozen=True, slots=True)
class Start:
    """Start the guest from its stored definition."""

    uuid: str

    def __str__(self) -> str:
        return f"start {self.uuid}"


@dataclass(frozen=True, slots=True)
class Resume:
    """Let a paused guest run on."""

    uuid: str

    def __str__(self) -> str:
        return f"resume {self.uuid}"


@dataclass(frozen=True, slots=True)
class ShutDown:
    """Press the guest's power button; it may take its time or ignore it."""

    uuid: str

    def __str__(self) -> str:
        return f"shut down {self.uuid}"


@dataclass(frozen=True, slots=True)
class PowerOff:
    """End the guest's process at once."""

    uuid: str

    def __str__(self) -> str:
        return f"power off {self.uuid}"


@dataclass(frozen=True, slots=True)
class Undefine:
    """Forget the stored definition."""

    uuid: str

    def __str__(self) -> str:
        return f"undefine {self.uuid}"


Step = Define | Start | Resume | ShutDown | PowerOff | Undefine


@dataclass(frozen=True, slots=True)
class Plan(steps.Plan[Step]):
    """Steps in order, and what they can't reach yet.

    `restart_required` names the fields of the domain that a living guest runs with otherwise than it should.
    `look_again` is in how many seconds the plan is worth making anew, None where something will happen first.
    """

    restart_required: tuple[str, ...] = ()
    look_again: float | None = None


@dataclass(frozen=True, slots=True)
class Pressed:
    """How many seconds ago the power button was pressed, for the first time and for the last."""

    first: float
    last: float


def pinned(wanted: Domain, seen: Domain | None) -> Domain:
    """`wanted` with the machine version that the guest was first given: a newer hypervisor never changes a guest."""
    if seen is not None and seen.machine.startswith(_FAMILIES.get(wanted.machine, wanted.machine + "-")):
        return dataclasses.replace(wanted, machine=seen.machine)
    return wanted


def plan(desired: Desired, observed: Observed | None, *, pressed: Pressed | None = None) -> Plan:
    """Order the steps from what the hypervisor has to what it should have.

    `pressed` is what the caller remembers of the power button, None if it did not press it. It is pressed again every
    `PRESSED_EVERY` seconds, and after `desired.grace` the guest is powered off.
    """
    seen = None if observed is None else observed.persistent or observed.active
    wanted = pinned(desired.domain, seen)
    define: tuple[Step, ...] = () if observed is not None and observed.persistent == wanted else (Define(wanted),)
    if desired.power is Power.STOPPED:
        off = _stop(wanted.uuid, observed, desired.grace, pressed)
        return dataclasses.replace(off, steps=define + off.steps)
    if observed is None or not observed.state.is_active:
        return Plan(steps=(*define, Start(wanted.uuid)))
    running: tuple[Step, ...] = (Resume(wanted.uuid),) if observed.state is State.PAUSED else ()
    return Plan(steps=define + running, restart_required=_differing(wanted, observed.active))


def plan_removal(uuid: str, observed: Observed | None, *, grace: float, pressed: Pressed | None = None) -> Plan:
    """Order the steps until nothing of the domain is left; arguments as for `plan`."""
    if observed is None:
        return Plan()
    off = _stop(uuid, observed, grace, pressed)
    if off.look_again is not None or observed.persistent is None:
        return off
    return dataclasses.replace(off, steps=(*off.steps, Undefine(uuid)))


def _stop(uuid: str, observed: Observed | None, grace: float, pressed: Pressed | None) -> Plan:
    if observed is None or not observed.state.is_active:
        return Plan()
    elapsed = 0.0 if pressed is None else pressed.first
    if elapsed >= grace or observed.state is State.PAUSED:
        return Plan(steps=(PowerOff(uuid),))
    if pressed is None or pressed.last >= PRESSED_EVERY:
        return Plan(steps=(ShutDown(uuid),), look_again=min(grace - elapsed, PRESSED_EVERY))
    return Plan(look_again=min(grace - elapsed, PRESSED_EVERY - pressed.last))


def _differing(wanted: Domain, active: Domain | None) -> tuple[str, ...]:
    if active is None:
        return ()
    fields = (field.name for field in dataclasses.fields(Domain))
    return tuple(name for name in fields if getattr(wanted, name) != getattr(active, name))
