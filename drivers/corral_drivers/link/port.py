"""The port of a host's links."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from corral_drivers.link.model import Observed
from corral_drivers.link.plan import Step


@dataclass(frozen=True, slots=True)
class Settings:
    """By which uids the marks are ours, and the gateway that every guest sees."""

    cloud: str
    host: str
    gateway: str = "169.254.1.1"


class Links(Protocol):
    """One host's taps, seen by one cloud: interfaces that carry other marks do not exist for it.

    Every method may raise the three errors with a `model.Cause`. Every step is idempotent.
    """

    async def prepare(self) -> None:
        """What all guests share: forwarding, and the link-local gateway that answers every guest's ARP.

        Interfaces that take their routes from router advertisements go on doing so.
        """
        ...

    async def observe(self, owner: str) -> tuple[Observed, ...]:
        """The taps of this owner, in the order of their names."""
        ...

    async def owners(self) -> frozenset[str]:
        """Everyone who has a tap here."""
        ...

    async def apply(self, step: Step) -> None:
        """Carry out one step of a plan."""
        ...

    async def watch(self, changed: Callable[[str], None], missed: Callable[[], None]) -> Callable[[], None]:
        """From now on call `changed(owner)` on the event loop when a tap of this owner comes, changes or goes.

        Whoever did it, we too. `missed()` says that some of it may not have been told. What is returned ends it.
        """
        ...
