"""The port of a host's routing daemons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from corral_drivers.bgp.model import Desired, Observed, Session, Speaker
from corral_drivers.bgp.plan import Step


@dataclass(frozen=True, slots=True)
class Settings:
    """By which uids the configuration is ours; the folder of the daemons' sockets, and the file they start from."""

    cloud: str
    host: str
    sockets: str = "/run/frr"
    file: str = "/etc/frr/frr.conf"
    within: float = 10.0
    """Seconds for one answer: bgpd computes for a while when a whole fabric comes."""


class Bgp(Protocol):
    """One host's routing daemons, whose whole configuration is ours or not touched.

    Every method that waits may raise the three errors with a `model.Cause`. Every step is idempotent.
    """

    def render(self, speaker: Speaker | None, *, take_over: bool = False) -> Desired:
        """What the daemons should have, None for nothing. Raises `errors.Rejected` for what no daemon would take."""
        ...

    async def observe(self) -> Observed:
        """What the daemons have."""
        ...

    async def apply(self, step: Step) -> None:
        """Carry out one step of a plan."""
        ...

    async def sessions(self) -> tuple[Session, ...]:
        """How it stands with each neighbor, in the order of their names."""
        ...

    async def announced(self) -> frozenset[str]:
        """The prefixes that at least one neighbor with an established session is told."""
        ...
