"""What to do so that a domain becomes what it should be. Pure: clock and memory of the caller are arguments."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from corral_drivers import steps
from corral_drivers.hypervisor.model import ACCELERATORS, Desired, Domain, Interface, Observed, Power, State

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
    """Let a paused guest run on, or end one that can't, so that it is started anew."""

    uuid: str

    def __str__(self) -> str:
        return f"resume {self.uuid}"


@dataclass(frozen=True, slots=True)
class Replug:
    """Take the NIC on this tap from the living guest, and plug it in again as it is defined: it holds the tap anew."""

    uuid: str
    tap: str

    def __str__(self) -> str:
        return f"plug the NIC on {self.tap} into {self.uuid} again"


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


Step = Define | Start | Resume | Replug | ShutDown | PowerOff | Undefine


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
    """`wanted` with the machine version, accelerator and UEFI that the guest was first given.

    A newer host never changes a guest, nor does a host that was too busy to find out what it can do. Its UEFI variables
    are made for the code that it first started with.
    """
    if seen is not None and seen.accelerator in ACCELERATORS:
        wanted = dataclasses.replace(wanted, accelerator=seen.accelerator)
    if seen is not None and wanted.uefi is not None and seen.uefi is not None:
        wanted = dataclasses.replace(wanted, uefi=dataclasses.replace(wanted.uefi, firmware=seen.uefi.firmware))
    if seen is not None and seen.machine.startswith(_FAMILIES.get(wanted.machine, wanted.machine + "-")):
        return dataclasses.replace(wanted, machine=seen.machine)
    return wanted


def plan(desired: Desired, observed: Observed | None, *, pressed: Pressed | None = None) -> Plan:
    """Order the steps from what the hypervisor has to what it should have.

    `pressed` is what the caller remembers of the power button, None if it did not press it. It is pressed again every
    `PRESSED_EVERY` seconds, and after `desired.grace` the guest is powered off.
    """
    # What is put back keeps its machine too: a guest that is off has nothing else that tells which one it had.
    seen = None if observed is None else observed.persistent or observed.active or observed.edited
    wanted = pinned(desired.domain, seen)
    define: tuple[Step, ...] = () if observed is not None and observed.persistent == wanted else (Define(wanted),)
    if desired.power is Power.STOPPED:
        off = _stop(wanted.uuid, observed, desired.grace, pressed)
        return dataclasses.replace(off, steps=define + off.steps)
    if observed is None or not observed.state.is_active:
        return Plan(steps=(*define, Start(wanted.uuid)))
    running: tuple[Step, ...] = (Resume(wanted.uuid),) if observed.state is State.PAUSED else ()
    steps = define + running + _replugs(wanted, observed, desired.unheld)
    return Plan(steps=steps, restart_required=_differing(wanted, observed.active))


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


def _replugs(wanted: Domain, observed: Observed, unheld: frozenset[str]) -> tuple[Step, ...]:
    """A running guest that lost its end of a tap gets its NIC anew; one that has another NIC there keeps that."""
    if observed.active is None or observed.state is not State.RUNNING:
        return ()
    lost = (nic for nic in wanted.interfaces if nic.tap in unheld and _can_hold(nic, observed.active))
    return tuple(Replug(wanted.uuid, nic.tap) for nic in lost)


def _can_hold(nic: Interface, active: Domain) -> bool:
    slots = {disk.slot for disk in active.disks} | {one.slot for one in active.interfaces}
    is_free = all(nic.tap != one.tap and nic.mac != one.mac for one in active.interfaces) and nic.slot not in slots
    return nic in active.interfaces or is_free


def _differing(wanted: Domain, active: Domain | None) -> tuple[str, ...]:
    if active is None:
        return ()
    fields = (field.name for field in dataclasses.fields(Domain))
    return tuple(name for name in fields if getattr(wanted, name) != getattr(active, name))
