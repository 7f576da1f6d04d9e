"""An image cache without a network: what is fetched is there at once, as large as it was told. It ships.

For hosts by the thousand in one process, and for tests. It passes the contract suite of the real one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from corral_drivers import errors
from corral_drivers.image import folder
from corral_drivers.image.model import Format, Held, Progress
from corral_drivers.image.plan import Step
from corral_drivers.image.port import Settings


@dataclass(slots=True)
class World:
    """What outlives a driver: the images on one host's disk."""

    held: dict[tuple[str, Format], Held] = field(default_factory=dict)


class Simulated:
    """Every image has `size` and `virtual_size` bytes. `fail_at` is asked for an error before each step."""

    def __init__(
        self,
        settings: Settings,
        *,
        world: World | None = None,
        size: int = 2**20,
        virtual_size: int = 2**30,
        fail_at: Callable[[object], errors.DriverError | None] | None = None,
    ) -> None:
        self._folder = settings.folder
        self._world = world or World()
        self._size = size
        self._virtual_size = virtual_size
        self._fail_at = fail_at

    async def observe(self) -> tuple[Held, ...]:
        return tuple(self._world.held[key] for key in sorted(self._world.held))

    async def apply(self, step: Step, report: Callable[[Progress], None] | None = None) -> None:
        await asyncio.sleep(0)
        image = step.image
        folder.check_sum(image.sha256)
        if self._fail_at and (error := self._fail_at(step)):
            raise error
        if (image.sha256, image.format) in self._world.held:
            return
        if report is not None:
            report(Progress(image.sha256, self._size, self._size))
        self._world.held[image.sha256, image.format] = Held(
            sha256=image.sha256,
            format=image.format,
            path=f"{self._folder}/{image.sha256}.{image.format}",
            size=self._size,
            virtual_size=self._virtual_size if image.format is Format.QCOW2 else self._size,
        )
