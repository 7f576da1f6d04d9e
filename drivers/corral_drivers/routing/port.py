"""The port of the kernel's routing and neighbour tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from corral_drivers.routing.model import Blackhole, Table
from corral_drivers.routing.plan import Step


@dataclass(frozen=True, slots=True)
class Settings:
    """The kernel's table that routes go to (254 is main)."""

    table: int = 254


class Routing(Protocol):
    """One host's routes and neighbours of our own protocol; all others do not exist for it.

    Every method may raise the three errors with a `model.Cause`. Every step is idempotent.
    """

    async def observe(self, interfaces: Iterable[str] | None = None) -> Table:
        """Ours over these interfaces (None: over all). An interface that does not exist has nothing."""
        ...

    async def blackholes(self) -> tuple[Blackhole, ...]:
        """Ours, which lead over no interface."""
        ...

    async def apply(self, step: Step) -> None:
        """Carry out one step of a plan."""
        ...

    async def watch(self, changed: Callable[[str], None], missed: Callable[[], None]) -> Callable[[], None]:
        """From now on call `changed(interface)` on the event loop when a route or neighbour of ours over it changes.

        With an empty name where a blackhole of ours does.
        Whoever did it, we too; not where the interface itself went, of which only links tell. `missed()` says that some
        of it may not have been told. What is returned ends it.
        """
        ...
