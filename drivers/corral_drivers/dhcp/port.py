"""The port of what guests are answered."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from corral_drivers.dhcp.model import Gateway, Service
from corral_drivers.dhcp.plan import Step


@dataclass(frozen=True, slots=True)
class Settings:
    """Where it is kept what to answer, and who answers: the gateways that every guest sees, and the host's MAC.

    Every `advertise_every` seconds each tap with an IPv6 address is sent a router advertisement that nobody asked for.
    A guest that asks without end is not heard for `muted_for` seconds.
    """

    folder: str
    gateway: str
    gateway6: str
    mac: str
    advertise_every: float = 1800.0
    muted_for: float = 10.0

    @property
    def answering(self) -> Gateway:
        """Who answers, in the packets' own terms."""
        mac = bytes.fromhex(self.mac.replace(":", ""))
        return Gateway(ipaddress.IPv4Address(self.gateway), ipaddress.IPv6Address(self.gateway6), mac)


class Dhcp(Protocol):
    """One host's answers to DHCP, DHCPv6 and router solicitations. Every method may raise the three errors.

    An answer is chosen by the interface that a question came in by and the MAC that it came from, and leaves by that
    interface only. Which answers there are outlives the process: a new one goes on with them once it is prepared.
    """

    async def prepare(self) -> None:
        """Answer whoever was answered before this process began; to observe and to serve does so too, if none has yet.

        What only takes away needs no right to hear guests.
        """
        ...

    async def observe(self, owner: str) -> Service | None:
        """What this owner's guest is answered, now and after a restart; None where that is nothing, or not the same."""
        ...

    async def owners(self) -> frozenset[str]:
        """Everyone who is answered here, now or after a restart."""
        ...

    async def apply(self, step: Step) -> None:
        """Carry out one step of a plan."""
        ...

    async def watch(self, changed: Callable[[str], None], missed: Callable[[], None]) -> Callable[[], None]:
        """From now on call `changed(owner)` on the event loop when what is kept of this owner comes, changes or goes.

        Whoever did it, we too; it begins with the first look at any. `missed()` says that some of it may not have been
        told. What is returned ends it.
        """
        ...

    async def close(self) -> None:
        """Answer nobody from now on; what is kept stays for the next process."""
        ...
