"""Which taps to make, mend and remove. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from corral_drivers import steps
from corral_drivers.link.model import HOST_MAC, Observed, Tap


@dataclass(frozen=True, slots=True, order=True)
class Ensure:
    """Make the tap, or set what differs; a guest that holds it notices nothing."""

    tap: Tap

    def __str__(self) -> str:
        return f"ensure tap {self.tap.name} with MTU {self.tap.mtu}"


@dataclass(frozen=True, slots=True, order=True)
class Remove:
    """Remove the tap; the kernel removes its routes and neighbours with it."""

    name: str

    def __str__(self) -> str:
        return f"remove tap {self.name}"


Step = Ensure | Remove


Plan = steps.Plan[Step]


def plan(desired: Iterable[Tap], observed: Iterable[Observed]) -> Plan:
    """Order the steps from the taps that an owner has to those it should have."""
    want = {tap.name: tap for tap in desired}
    have = {tap.name: tap for tap in observed}
    ensure = sorted(Ensure(tap) for name, tap in want.items() if not _holds(tap, have.get(name)))
    return Plan(steps=(*ensure, *(Remove(name) for name in sorted(have.keys() - want.keys()))))


def _holds(tap: Tap, seen: Observed | None) -> bool:
    wanted = (tap.owner, tap.mtu, HOST_MAC, True, True)
    return seen is not None and (seen.owner, seen.mtu, seen.mac, seen.up, seen.gateway) == wanted
