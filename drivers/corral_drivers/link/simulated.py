"""Links that ship for tests, demonstrations and load: the same port, taps in memory, thousands at no cost.

A `World` stands for the kernel: what outlives a driver, and what foreign hands put there. The marks are those of the
real driver. It may be given a view of the guests, `held`: whether one has the other end of a tap.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from corral_drivers import errors, listeners
from corral_drivers.link import names
from corral_drivers.link.model import HOST_MAC, Observed, Tap
from corral_drivers.link.plan import Ensure, Step
from corral_drivers.link.port import Settings

FailAt = Callable[[object], errors.DriverError | None]


@dataclass(frozen=True, slots=True)
class Interface:
    """One interface of the world, whoever's; its index is never given twice."""

    index: int
    alias: str
    mtu: int
    mac: str
    up: bool = True
    gateway: bool = True


@dataclass(slots=True)
class World:
    """A kernel's interfaces by name."""

    held: Callable[[str], bool] = lambda _: True

    interfaces: dict[str, Interface] = field(default_factory=dict)
    by_alias: dict[str, set[str]] = field(default_factory=dict)
    """The names of the interfaces that carry an alias."""

    indices: Iterator[int] = field(default_factory=lambda: itertools.count(2))
    listeners: listeners.Listeners = field(default_factory=listeners.Listeners)
    """They are told the alias of what changes."""

    def put(self, name: str, interface: Interface) -> None:
        """Make it, or replace the one of this name."""
        self.drop(name)
        self.interfaces[name] = interface
        self.by_alias.setdefault(interface.alias, set()).add(name)
        self.listeners.tell(interface.alias)

    def drop(self, name: str) -> None:
        """Remove it, if it is there."""
        if gone := self.interfaces.pop(name, None):
            namesakes = self.by_alias[gone.alias]
            namesakes.discard(name)
            if not namesakes:
                del self.by_alias[gone.alias]
            self.listeners.tell(gone.alias)

    def index(self, name: str) -> int | None:
        """The index of an interface; None where there is none of this name."""
        found = self.interfaces.get(name)
        return found.index if found else None


class Simulated:
    """The links of one host, in memory. `fail_at` is asked before each step, and what it returns is raised."""

    def __init__(self, settings: Settings, *, world: World | None = None, fail_at: FailAt | None = None) -> None:
        self._settings = settings
        self.world = world or World()
        self._fail_at = fail_at

    async def prepare(self) -> None:
        """Nothing is shared here: no guest sends a packet."""

    async def observe(self, owner: str) -> tuple[Observed, ...]:
        marked = self.world.by_alias.get(names.mark(self._settings, owner), ())
        return tuple(self._seen(name, owner) for name in sorted(marked))

    async def owners(self) -> frozenset[str]:
        prefix = names.mark(self._settings, "")
        return frozenset(alias.removeprefix(prefix) for alias in self.world.by_alias if alias.startswith(prefix))

    async def apply(self, step: Step) -> None:
        if self._fail_at and (error := self._fail_at(step)):
            raise error
        if isinstance(step, Ensure):
            names.check(step.tap, self._settings)
            self._ensure(step.tap)
        else:
            self._remove(step.name)

    async def watch(self, changed: Callable[[str], None], missed: Callable[[], None]) -> Callable[[], None]:
        prefix = names.mark(self._settings, "")

        def heard(alias: str) -> None:
            if alias.startswith(prefix):
                changed(alias.removeprefix(prefix))

        return self.world.listeners.add(heard)

    def _ensure(self, tap: Tap) -> None:
        mark = names.mark(self._settings, tap.owner)
        there = self.world.interfaces.get(tap.name)
        if there is None:
            there = Interface(next(self.world.indices), mark, tap.mtu, HOST_MAC)
        elif there.alias != mark:
            raise names.taken(tap.name, there.alias)
        self.world.put(tap.name, replace(there, mtu=tap.mtu, mac=HOST_MAC, up=True, gateway=True))

    def _remove(self, name: str) -> None:
        there = self.world.interfaces.get(name)
        if there and there.alias.startswith(names.mark(self._settings, "")):
            self.world.drop(name)

    def _seen(self, name: str, owner: str) -> Observed:
        there = self.world.interfaces[name]
        held = self.world.held(name)
        return Observed(name, owner, there.mtu, there.mac, up=there.up, carrier=held, gateway=there.gateway)
