"""Which disks to make, grow and remove. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from corral_drivers import errors, steps
from corral_drivers.storage.model import Cause, Disk, Observed, Standing, whole_sectors


@dataclass(frozen=True, slots=True, order=True)
class PutBack:
    """Give the disk's file its name again; a guest that has it open notices nothing."""

    owner: str
    name: str

    def __str__(self) -> str:
        return f"put {self.owner}/{self.name} back in its place"


@dataclass(frozen=True, slots=True, order=True)
class Keep:
    """Have the pool hold the disk's file whatever becomes of its name."""

    owner: str
    name: str

    def __str__(self) -> str:
        return f"keep {self.owner}/{self.name}"


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


Step = PutBack | Keep | Create | Grow | Remove


Plan = steps.Plan[Step]


def plan(
    desired: Iterable[Disk], observed: Iterable[Observed], *, had: Mapping[str, str] = MappingProxyType({})
) -> Plan:
    """Make what is missing and grow what is too small; what is there and not wanted stays.

    A disk is data: it goes only by `plan_removal`, when its owner is seen being deleted, and one that went otherwise is
    never made anew. `had` says of disks that the guest is known to have had where they were. Raises `errors.Rejected`
    for one of these that is gone, and for one that would have to shrink.
    """
    have = {(disk.owner, disk.name): disk for disk in observed}
    mended: list[PutBack | Keep] = []
    creates, grows = [], []
    for disk in desired:
        seen = have.get((disk.owner, disk.name))
        if seen is None:
            creates.append(_creation(disk, had))
            continue
        mended += _mending(seen)
        if seen.size > whole_sectors(disk.size):
            raise errors.Rejected(
                Cause.SHRINK_REFUSED,
                f"disk {disk.name} has {seen.size} bytes and can't shrink to {disk.size}",
            )
        if seen.size < whole_sectors(disk.size):
            grows.append(Grow(disk.owner, disk.name, disk.size))
    return Plan(steps=(*sorted(mended, key=str), *sorted(creates), *sorted(grows)))


def _creation(disk: Disk, had: Mapping[str, str]) -> Create:
    if where := had.get(disk.name):
        raise errors.Rejected(
            Cause.DISK_MISSING,
            f"disk {disk.name} was at {where} and is gone; no empty one is made in its place: put the file back there, "
            "or delete the guest",
        )
    return Create(disk)


def _mending(seen: Observed) -> tuple[PutBack | Keep, ...]:
    match seen.standing:
        case Standing.ASTRAY:
            return (PutBack(seen.owner, seen.name),)
        case Standing.UNKEPT:
            return (Keep(seen.owner, seen.name),)
        case Standing.IN_PLACE:
            return ()


def plan_removal(observed: Iterable[Observed]) -> Plan:
    """Remove every disk that is given."""
    return Plan(steps=tuple(sorted(Remove(disk.owner, disk.name) for disk in observed)))
