"""The port of seeds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from corral_drivers.seed.model import Seed
from corral_drivers.seed.plan import Step


@dataclass(frozen=True, slots=True)
class Settings:
    """Where seeds are kept."""

    folder: str


class Seeds(Protocol):
    """One host's seeds. Every method may raise the three errors with a `model.Cause`.

    A seed is there whole or not at all, readable by root alone, and the same bytes for the same `Seed`.
    """

    def path(self, owner: str) -> str:
        """Where the seed of this owner is, or will be."""
        ...

    async def observe(self, owner: str) -> Seed | None:
        """The seed of this owner as it can be read back; None where there is none or it can't be read."""
        ...

    async def owners(self) -> frozenset[str]:
        """Everyone who has a seed here."""
        ...

    async def apply(self, step: Step) -> None:
        """Carry out one step of a plan."""
        ...

    async def watch(self, changed: Callable[[str], None], missed: Callable[[], None]) -> Callable[[], None]:
        """From now on call `changed(owner)` on the event loop when the seed of this owner comes, changes or goes.

        Whoever did it, we too; it begins with the first look at any. `missed()` says that some of it may not have been
        told. What is returned ends it.
        """
        ...
