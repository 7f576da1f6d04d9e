"""The port of the image cache, one a host."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from corral_drivers.image.model import Held, Progress
from corral_drivers.image.plan import Step


@dataclass(frozen=True, slots=True)
class Settings:
    """Where images are kept, and how large one may be, in bytes."""

    folder: str
    size_limit: int = 64 * 2**30


class Images(Protocol):
    """One host's images, by sha256.

    Every method may raise the three errors with a `model.Cause`. A file is visible under its sum only when it is whole,
    checked and read-only; what a killed fetch left behind is taken up again or removed.
    """

    async def observe(self) -> tuple[Held, ...]:
        """What is held, in the order of the sums."""
        ...

    async def apply(self, step: Step, report: Callable[[Progress], None] | None = None) -> None:
        """Carry out one step; a `Fetch` returns when the file is held. Two fetches of one sum are one."""
        ...
