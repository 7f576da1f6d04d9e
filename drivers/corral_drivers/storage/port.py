"""The port of a pool, one a pool and host."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from corral_drivers.storage.model import Capacity, Observed
from corral_drivers.storage.plan import Step


@dataclass(frozen=True, slots=True)
class Settings:
    """The pool's folder, and by which uids its mark is ours."""

    cloud: str
    host: str
    folder: str


class Storage(Protocol):
    """One pool on one host. Every method may raise the three errors with a `model.Cause`.

    A disk is there whole or not at all; every step is idempotent. The pool holds a disk by more than its name: one
    whose file was renamed or deleted by hand is still observed, and can be put back.
    """

    format: str
    """What a guest's hypervisor must call the disks of this pool: `qcow2` or `raw`."""

    def path(self, owner: str, name: str) -> str:
        """Where the disk of this owner and name is, or will be."""
        ...

    async def observe(self, owner: str) -> tuple[Observed, ...]:
        """The disks of this owner, in the order of their names."""
        ...

    async def owners(self) -> frozenset[str]:
        """Everyone who has a disk here."""
        ...

    async def apply(self, step: Step) -> None:
        """Carry out one step of a plan."""
        ...

    async def capacity(self) -> Capacity:
        """How much room there is."""
        ...

    async def watch(self, changed: Callable[[str], None], missed: Callable[[], None]) -> Callable[[], None]:
        """From now on call `changed(owner)` on the event loop when a disk of this owner comes or goes by its name.

        Whoever did it, we too; it begins with the first look at an owner. `missed()` says that some of it may not have
        been told. What is returned ends it.
        """
        ...
