"""The port of the hypervisor: who calls it is the agent, who implements it is a package beside this file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from corral_drivers.hypervisor.model import Facts, Observed
from corral_drivers.hypervisor.plan import Step

ITSELF = ""
"""In place of a domain's uuid, of the hypervisor itself: it answers no more, or answers again."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the hypervisor is, and by which uids its marks are ours."""

    cloud: str
    host: str
    uri: str = "qemu:///system"


class Hypervisor(Protocol):
    """One host's hypervisor, seen by one cloud: domains that carry other marks do not exist for it.

    Every method may raise `errors.NotReady`, `errors.Unavailable` or `errors.Rejected` with a `model.Cause`. Every step
    is idempotent: applying it to a domain that is there already succeeds. A call never blocks the event loop.
    """

    async def facts(self) -> Facts:
        """What this host can run; the accelerator is found by trying, once a boot of the machine."""
        ...

    async def observe(self, uuid: str) -> Observed | None:
        """The domain of this uuid if it carries our mark, else None."""
        ...

    async def observe_all(self) -> tuple[Observed, ...]:
        """Every domain that carries our cloud's and host's mark, in the order of their uuids."""
        ...

    async def apply(self, step: Step) -> None:
        """Carry out one step of a plan."""
        ...

    def watch(self, changed: Callable[[str], None]) -> None:
        """From now on call `changed(uuid)` on the event loop when a domain's life changes, of whatever mark.

        Events may be lost with the connection: `changed(ITSELF)` is called when it goes, and `changed` for every domain
        of ours and `ITSELF` once it is back.
        """
        ...

    async def close(self) -> None:
        """Let go of connection and threads; no guest is touched."""
        ...
