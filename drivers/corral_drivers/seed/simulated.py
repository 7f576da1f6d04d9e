"""Seeds without files: what was written is what is read. It ships.

For hosts by the thousand in one process, and for tests. It passes the contract suite of the real one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from corral_drivers import errors, listeners
from corral_drivers.seed import names
from corral_drivers.seed.model import Seed
from corral_drivers.seed.plan import Remove, Step, Write
from corral_drivers.seed.port import Settings


@dataclass(slots=True)
class World:
    """What outlives a driver: the seeds on one host's disk, by owner."""

    seeds: dict[str, Seed] = field(default_factory=dict)
    listeners: listeners.Listeners = field(default_factory=listeners.Listeners)
    """They are told the owner of a seed that comes, changes or goes."""

    def put(self, owner: str, seed: Seed | None) -> None:
        """Have this seed there; None for none."""
        if seed is None:
            self.seeds.pop(owner, None)
        else:
            self.seeds[owner] = seed
        self.listeners.tell(owner)


class Simulated:
    """`fail_at` is asked for an error before each step."""

    def __init__(
        self,
        settings: Settings,
        *,
        world: World | None = None,
        fail_at: Callable[[object], errors.DriverError | None] | None = None,
    ) -> None:
        self._folder = settings.folder
        self._world = world or World()
        self._fail_at = fail_at

    def path(self, owner: str) -> str:
        names.check(owner)
        return f"{self._folder}/{owner}.iso"

    async def observe(self, owner: str) -> Seed | None:
        names.check(owner)
        return self._world.seeds.get(owner)

    async def owners(self) -> frozenset[str]:
        return frozenset(self._world.seeds)

    async def apply(self, step: Step) -> None:
        await asyncio.sleep(0)
        if self._fail_at and (error := self._fail_at(step)):
            raise error
        match step:
            case Write(seed):
                names.check(seed.owner)
                self._world.put(seed.owner, seed)
            case Remove(owner):
                names.check(owner)
                self._world.put(owner, None)

    async def watch(self, changed: Callable[[str], None], missed: Callable[[], None]) -> Callable[[], None]:
        return self._world.listeners.add(changed)
