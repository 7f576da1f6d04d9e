"""Which routes and neighbours to set and to remove. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from corral_drivers import steps
from corral_drivers.routing.model import Blackhole, Neighbour, Route, Table


@dataclass(frozen=True, slots=True, order=True)
class SetNeighbour:
    """Make or replace the permanent entry."""

    neighbour: Neighbour

    def __str__(self) -> str:
        return f"neighbour {self.neighbour.address} is {self.neighbour.mac} on {self.neighbour.interface}"


@dataclass(frozen=True, slots=True, order=True)
class SetRoute:
    """Make or replace the route."""

    route: Route

    def __str__(self) -> str:
        return f"route {self.route.prefix} over {self.route.interface}"


@dataclass(frozen=True, slots=True, order=True)
class RemoveRoute:
    """Remove the route."""

    route: Route

    def __str__(self) -> str:
        return f"no route {self.route.prefix} over {self.route.interface}"


@dataclass(frozen=True, slots=True, order=True)
class RemoveNeighbour:
    """Remove the entry."""

    neighbour: Neighbour

    def __str__(self) -> str:
        return f"no neighbour {self.neighbour.address} on {self.neighbour.interface}"


@dataclass(frozen=True, slots=True, order=True)
class SetBlackhole:
    """Make the blackhole."""

    blackhole: Blackhole

    def __str__(self) -> str:
        return f"blackhole {self.blackhole.prefix}"


@dataclass(frozen=True, slots=True, order=True)
class RemoveBlackhole:
    """Remove the blackhole."""

    blackhole: Blackhole

    def __str__(self) -> str:
        return f"no blackhole {self.blackhole.prefix}"


Step = SetNeighbour | SetRoute | RemoveRoute | RemoveNeighbour | SetBlackhole | RemoveBlackhole


Plan = steps.Plan[Step]


def plan(desired: Table, observed: Table) -> Plan:
    """Order the steps from what the kernel has to what it should have.

    A neighbour is there before the route that leads to it, and a route is replaced before a stale one goes, so that a
    prefix that moves is never unreachable.
    """
    want, have = {route.prefix: route for route in desired.routes}, {route.prefix: route for route in observed.routes}
    known = {(one.address, one.interface): one for one in observed.neighbours}
    wanted = {(one.address, one.interface): one for one in desired.neighbours}
    return Plan(
        steps=(
            *sorted(SetNeighbour(one) for key, one in wanted.items() if known.get(key) != one),
            *sorted(SetRoute(route) for prefix, route in want.items() if have.get(prefix) != route),
            *sorted(RemoveRoute(route) for prefix, route in have.items() if prefix not in want),
            *sorted(RemoveNeighbour(one) for key, one in known.items() if key not in wanted),
        )
    )


def plan_blackholes(desired: Iterable[Blackhole], observed: Iterable[Blackhole]) -> Plan:
    """Order the steps from the blackholes that the kernel has to those that it should have."""
    want, have = set(desired), set(observed)
    return Plan(steps=(*map(SetBlackhole, sorted(want - have)), *map(RemoveBlackhole, sorted(have - want))))
