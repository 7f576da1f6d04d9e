"""The port of a host's firewall, and its settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from corral_drivers.firewall.model import Observed
from corral_drivers.firewall.plan import Step


@dataclass(frozen=True, slots=True)
class Settings:
    """By which uids the tables are ours, and what holds for every guest.

    Everything that comes over an interface whose name starts with `prefix` is a guest's: what is not known of it is
    dropped. `connections` is how many a guest may have tracked at once: the kernel walks a guest's list of them when a
    new one comes.
    """

    cloud: str
    host: str
    gateway: str = "169.254.1.1"
    gateway6: str = "fe80::1"
    prefix: str = "ct"
    connections: int = 10_000

    @property
    def table(self) -> str:
        """The name of our tables, which is our mark: nftables 1.0.6 shows no comment of a table in JSON."""
        return f"corral.{self.cloud}.{self.host}"


class Firewall(Protocol):
    """One host's firewall, seen by one cloud: tables of other names do not exist for it.

    Every method may raise the three errors with a `model.Cause`. Every step is idempotent, and is one transaction: it
    is made whole, or the rules are those from before.
    """

    async def observe(self, owner: str | None = None) -> Observed:
        """What is there of this owner's taps; None: everything."""
        ...

    async def owners(self) -> frozenset[str]:
        """Everyone who has a tap here."""
        ...

    async def apply(self, step: Step) -> None:
        """Carry out one step of a plan."""
        ...

    async def watch(self, changed: Callable[[], None]) -> Callable[[], None]:
        """From now on call `changed()` on the event loop when somebody else changed what is ours, or may have.

        What is returned ends it.
        """
        ...
