"""Which disks to make, grow and remove. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from corral_drivers import errors, steps
from corral_drivers.storage.model import Cause, Disk, Observed, whole_sectors


@dataclass(frozen=True, slots=True, order=True)
class Create:
    """Make the disk."""

    disk: Disk

    def __str__(self) -> str:
        source = f"a clone of {self.disk.base}" if self.disk.base else "blank"
        return f"create {self.disk.owner}/{self.disk.name}, {self.disk.size} bytes, {source}"


@dataclass(frozen=True, slots=True, order=True)
class Grow:
    """Make the disk larger."""

    owner: str
    name: str
    size: int

    def __str__(self) -> str:
        return f"grow {self.owner}/{self.name} to {self.size} bytes"


@dataclass(frozen=True, slots=True, order=True)
class Remove:
    """Remove the disk with all that is in it."""

    owner: str
    name: str

    def __str__(self) -> str:
        return f"remove {self.owner}/{self.name}"


Step = Create | Grow | Remove


Plan = steps.Plan[Step]


def plan(desired: Iterable[Disk], observed: Iterable[Observed]) -> Plan:
    """Make what is missing and grow what is too small; what is there and not wanted stays.

    A disk is data: it goes only by `plan_removal`, when its owner is seen being deleted. Raises `errors.Rejected` for a
    disk that would have to shrink.
    """
    have = {(disk.owner, disk.name): disk for disk in observed}
    creates, grows = [], []
    for disk in desired:
        seen = have.get((disk.owner, disk.name))
        if seen is None:
            creates.append(Create(disk))
        elif seen.size > whole_sectors(disk.size):
            raise errors.Rejected(
                Cause.SHRINK_REFUSED,
                f"disk {disk.name} has {seen.size} bytes and can't shrink to {disk.size}",
            )
        elif seen.size < whole_sectors(disk.size):
            grows.append(Grow(disk.owner, disk.name, disk.size))
    return Plan(steps=(*sorted(creates), *sorted(grows)))


def plan_removal(observed: Iterable[Observed]) -> Plan:
    """Remove every disk that is given."""
    return Plan(steps=tuple(sorted(Remove(disk.owner, disk.name) for disk in observed)))
