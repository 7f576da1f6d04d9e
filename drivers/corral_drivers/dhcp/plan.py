"""Whether what an owner's guest is answered must be set or ended. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from corral_drivers import steps
from corral_drivers.dhcp.model import Service


@dataclass(frozen=True, slots=True)
class Serve:
    """Answer so from now on, in place of what the owner's guest was answered before."""

    service: Service

    def __str__(self) -> str:
        over = ", ".join(answer.interface for answer in self.service.answers) or "nothing"
        return f"answer {self.service.owner} over {over}"


@dataclass(frozen=True, slots=True)
class Silence:
    """Answer this owner's guest no more."""

    owner: str

    def __str__(self) -> str:
        return f"answer {self.owner} no more"


Step = Serve | Silence


Plan = steps.Plan[Step]


def plan(desired: Service | None, observed: Service | None, owner: str) -> Plan:
    """Order the steps from what an owner's guest is answered to what it should be, None being nothing."""
    if desired == observed:
        return Plan()
    return Plan(steps=(Silence(owner),) if desired is None else (Serve(desired),))
