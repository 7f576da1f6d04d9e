"""Whether a seed must be written or removed. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from corral_drivers import steps
from corral_drivers.seed.model import Seed


@dataclass(frozen=True, slots=True)
class Write:
    """Write the seed, in place of what is there."""

    seed: Seed

    def __str__(self) -> str:
        return f"write the seed of {self.seed.owner}"


@dataclass(frozen=True, slots=True)
class Remove:
    """Remove the seed."""

    owner: str

    def __str__(self) -> str:
        return f"remove the seed of {self.owner}"


Step = Write | Remove


Plan = steps.Plan[Step]


def plan(desired: Seed | None, observed: Seed | None, owner: str) -> Plan:
    """Order the steps from the seed that an owner has to the one it should have, None being none."""
    if desired == observed:
        return Plan()
    return Plan(steps=(Remove(owner),) if desired is None else (Write(desired),))
