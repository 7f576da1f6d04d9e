"""Tables that ship for tests, demonstrations and load: the same port, routes in memory, thousands at no cost.

A `World` stands for the kernel: what outlives a driver, and routes of other protocols. It may be given a view of the
interfaces that exist (name → index, None where there is none): then routes need theirs, and go when it goes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from corral_drivers import errors, listeners
from corral_drivers.routing import values
from corral_drivers.routing.model import Blackhole, Cause, Neighbour, Route, Table
from corral_drivers.routing.plan import (
    RemoveBlackhole,
    RemoveNeighbour,
    RemoveRoute,
    SetBlackhole,
    SetNeighbour,
    SetRoute,
    Step,
)
from corral_drivers.routing.port import Settings

FailAt = Callable[[object], errors.DriverError | None]


@dataclass(slots=True)
class Entries:
    """What leads over one interface: prefixes, and MACs by address; void once the interface's index is another."""

    index: int
    prefixes: set[tuple[int, str]] = field(default_factory=set)
    macs: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class World:
    """A kernel's tables of routes, ours by interface."""

    index: Callable[[str], int | None] = lambda _: 1
    foreign: set[tuple[int, str]] = field(default_factory=set)
    """Table and prefix of the routes of other protocols."""

    by_interface: dict[str, Entries] = field(default_factory=dict)
    holder: dict[tuple[int, str], str] = field(default_factory=dict)
    """Over which interface a table's prefix leads."""

    blackholes: set[tuple[int, str]] = field(default_factory=set)
    """Table and prefix of our blackholes."""

    listeners: listeners.Listeners = field(default_factory=listeners.Listeners)
    """They are told the interface over which something changes, nothing for a blackhole."""

    def entries(self, interface: str) -> Entries | None:
        """What leads over the interface; what led over a former one of its name is gone with that."""
        known = self.by_interface.get(interface)
        if known and known.index != self.index(interface):
            for key in known.prefixes:
                self.holder.pop(key, None)
            del self.by_interface[interface]
            return None
        return known

    def lose(self, interface: str) -> None:
        """Forget all that leads over the interface behind the drivers' back."""
        if known := self.by_interface.pop(interface, None):
            for key in known.prefixes:
                self.holder.pop(key, None)
            self.listeners.tell(interface)


class Simulated:
    """The tables of one host, in memory. `fail_at` is asked before each step, and what it returns is raised."""

    def __init__(self, settings: Settings, *, world: World | None = None, fail_at: FailAt | None = None) -> None:
        self._table = settings.table
        self.world = world or World()
        self._fail_at = fail_at

    async def observe(self, interfaces: Iterable[str] | None = None) -> Table:
        named = set(self.world.by_interface) if interfaces is None else set(interfaces)
        found = [(name, entries) for name in named if (entries := self.world.entries(name))]
        routes = (Route(prefix, name) for name, one in found for table, prefix in one.prefixes if table == self._table)
        neighbours = (Neighbour(address, mac, name) for name, one in found for address, mac in one.macs.items())
        return Table(tuple(sorted(routes)), tuple(sorted(neighbours)))

    async def blackholes(self) -> tuple[Blackhole, ...]:
        return tuple(sorted(Blackhole(prefix) for table, prefix in self.world.blackholes if table == self._table))

    async def apply(self, step: Step) -> None:
        if self._fail_at and (error := self._fail_at(step)):
            raise error
        match step:
            case SetNeighbour(neighbour):
                values.address(neighbour)
                operation = f"neighbour {neighbour.address} on {neighbour.interface}"
                self._entries(neighbour.interface, operation).macs[neighbour.address] = neighbour.mac
            case SetRoute(route):
                values.network(route)
                self._set_route(route)
            case RemoveRoute(route):
                if entries := self.world.entries(route.interface):
                    self._forget(entries, route)
            case RemoveNeighbour(neighbour):
                if entries := self.world.entries(neighbour.interface):
                    entries.macs.pop(neighbour.address, None)
            case SetBlackhole(blackhole):
                values.network(blackhole)
                self.world.blackholes.add((self._table, blackhole.prefix))
            case RemoveBlackhole(blackhole):
                self.world.blackholes.discard((self._table, blackhole.prefix))
        self.world.listeners.tell(_interface(step))

    async def watch(self, changed: Callable[[str], None], missed: Callable[[], None]) -> Callable[[], None]:
        return self.world.listeners.add(changed)

    def _set_route(self, route: Route) -> None:
        operation, key = f"route {route.prefix} over {route.interface}", (self._table, route.prefix)
        entries = self._entries(route.interface, operation)
        if key in self.world.foreign:
            raise errors.Rejected(Cause.PREFIX_TAKEN, f"{operation}: a route of another protocol holds this prefix")
        former = self.world.holder.get(key)
        if former and former in self.world.by_interface:
            self.world.by_interface[former].prefixes.discard(key)
        self.world.holder[key] = route.interface
        entries.prefixes.add(key)

    def _forget(self, entries: Entries, route: Route) -> None:
        key = (self._table, route.prefix)
        if key in entries.prefixes:
            entries.prefixes.discard(key)
            del self.world.holder[key]

    def _entries(self, interface: str, operation: str) -> Entries:
        index = self.world.index(interface)
        if index is None:
            raise errors.NotReady(Cause.INTERFACE_MISSING, f"{operation}: there is no such interface yet")
        return self.world.entries(interface) or self.world.by_interface.setdefault(interface, Entries(index))


def _interface(step: Step) -> str:
    match step:
        case SetRoute(route) | RemoveRoute(route):
            return route.interface
        case SetNeighbour(neighbour) | RemoveNeighbour(neighbour):
            return neighbour.interface
        case _:
            return ""
