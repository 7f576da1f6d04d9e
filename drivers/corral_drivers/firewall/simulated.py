"""A firewall that ships for tests, demonstrations and load: the same port, sets in memory, thousands at no cost.

A `World` stands for the kernel: what outlives a driver, also tables of others, and the flows that it tracks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from corral_drivers import errors, listeners
from corral_drivers.firewall import flows, values
from corral_drivers.firewall.model import Cause, Element, Flow, Observed
from corral_drivers.firewall.plan import Change, Lay, Sever, Step
from corral_drivers.firewall.port import Settings
from corral_drivers.firewall.ruleset import RuleSet

FailAt = Callable[[object], errors.DriverError | None]


@dataclass(slots=True)
class World:
    """A kernel's tables by name, and its tracked flows. Where rules were changed by hand, the name is in `spoilt`."""

    tables: dict[str, RuleSet] = field(default_factory=dict)
    spoilt: set[str] = field(default_factory=set)
    flows: set[Flow] = field(default_factory=set)
    listeners: listeners.Listeners = field(default_factory=listeners.Listeners)
    """They are told the table that somebody else than its driver changed."""

    def flush(self, table: str) -> None:
        """Somebody removes a table by hand."""
        self.tables.pop(table, None)
        self.listeners.tell(table)

    def spoil(self, table: str) -> None:
        """Somebody changes the rules by hand."""
        self.spoilt.add(table)
        self.listeners.tell(table)

    def lose(self, table: str, element: Element) -> None:
        """Somebody removes an element by hand."""
        self.tables[table].remove(element)
        self.listeners.tell(table)


class Simulated:
    """The firewall of one host, in memory. `fail_at` is asked before each step, and what it returns is raised."""

    def __init__(self, settings: Settings, *, world: World | None = None, fail_at: FailAt | None = None) -> None:
        self._table = settings.table
        self.world = world or World()
        self._fail_at = fail_at
        self._judged = False

    async def observe(self, owner: str | None = None) -> Observed:
        rules = self.world.tables.get(self._table)
        if rules is None:
            return Observed(judged=self._judged)
        laid = self._table not in self.world.spoilt
        found = rules.everything() if owner is None else rules.of(owner)
        return Observed(laid, self._judged, found, dict(rules.names))

    async def owners(self) -> frozenset[str]:
        rules = self.world.tables.get(self._table)
        return frozenset() if rules is None else rules.owners()

    async def apply(self, step: Step) -> None:
        if self._fail_at and (error := self._fail_at(step)):
            raise error
        match step:
            case Lay(laid):
                values.check(laid)
                self.world.tables[self._table] = RuleSet(laid)
                self.world.spoilt.discard(self._table)
            case Change(remove, add):
                values.check((*remove, *add))
                rules = self.world.tables.get(self._table)
                if rules is None:
                    raise errors.Unavailable(Cause.REFUSED, f"{step}: there is no table; the rules are as before")
                rules.change(remove, add)
            case Sever(shared, taps, everything):
                court = flows.Court(shared, taps)
                self.world.flows -= {flow for flow in self.world.flows if court.ends(flow)}
                self._judged |= everything

    async def watch(self, changed: Callable[[], None]) -> Callable[[], None]:
        def heard(table: str) -> None:
            if table == self._table:
                changed()

        return self.world.listeners.add(heard)
