"""Answers without packets: the same port, thousands of guests in memory. It ships, for tests and for load.

A `World` stands for the host: what is kept outlives a driver. `World.ask` hands a frame to the driver that answers now,
and gives back what it would send.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from corral_drivers import errors, listeners
from corral_drivers.dhcp import names, respond, table
from corral_drivers.dhcp.model import Service
from corral_drivers.dhcp.plan import Serve, Step
from corral_drivers.dhcp.port import Settings


@dataclass(slots=True)
class World:
    """What is kept on one host's disk, by owner, and who answers."""

    kept: dict[str, Service] = field(default_factory=dict)
    listeners: listeners.Listeners = field(default_factory=listeners.Listeners)
    """They are told the owner of what is kept when it comes, changes or goes."""

    answering: Callable[[str, bytes], bytes | None] | None = None
    deaf: errors.DriverError | None = None
    """What a driver meets that tries to begin, None where it can."""

    def put(self, owner: str, service: Service | None) -> None:
        """Keep this; None for nothing."""
        if service is None:
            self.kept.pop(owner, None)
        else:
            self.kept[owner] = service
        self.listeners.tell(owner)

    def ask(self, interface: str, frame: bytes) -> bytes | None:
        """The answer to a frame of the guest on this interface."""
        return self.answering(interface, frame) if self.answering else None


class Simulated:
    """The answers of one host, in memory. `fail_at` is asked for an error before each step."""

    def __init__(
        self,
        settings: Settings,
        *,
        world: World | None = None,
        fail_at: Callable[[object], errors.DriverError | None] | None = None,
    ) -> None:
        self._gateway = settings.answering
        self._world = world or World()
        self._fail_at = fail_at
        self._table: table.Table | None = None

    async def prepare(self) -> None:
        self._prepared()

    async def observe(self, owner: str) -> Service | None:
        names.check_owner(owner)
        there = self._world.kept.get(owner)
        return there if there == self._prepared().service(owner) else None

    async def owners(self) -> frozenset[str]:
        return frozenset(self._world.kept) | (frozenset() if self._table is None else self._table.owners())

    async def apply(self, step: Step) -> None:
        await asyncio.sleep(0)
        if self._fail_at and (error := self._fail_at(step)):
            raise error
        if isinstance(step, Serve):
            names.check(step.service)
            self._prepared().put(step.service)
            self._world.put(step.service.owner, step.service)
        else:
            names.check_owner(step.owner)
            self._world.put(step.owner, None)
            if self._table is not None:
                self._table.drop(step.owner)

    async def watch(self, changed: Callable[[str], None], missed: Callable[[], None]) -> Callable[[], None]:
        return self._world.listeners.add(changed)

    async def close(self) -> None:
        if self._table is not None:
            self._table, self._world.answering = None, None

    def _prepared(self) -> table.Table:
        if self._table is None:
            if self._world.deaf:
                raise self._world.deaf
            self._table = table.Table()
            for _, service in sorted(self._world.kept.items()):
                self._table.put(service)
            self._world.answering = self._answer
        return self._table

    def _answer(self, interface: str, frame: bytes) -> bytes | None:
        said = None if self._table is None else self._table.answer(interface)
        return None if said is None else respond.respond(said, self._gateway, frame)
