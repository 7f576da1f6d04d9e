"""A pool without a disk under it: sizes and names, no bytes. It ships.

For hosts by the thousand in one process, and for tests. It passes the contract suite of the real ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from corral_drivers import errors, listeners
from corral_drivers.storage import names
from corral_drivers.storage.model import Capacity, Cause, Disk, Observed, Standing, whole_sectors
from corral_drivers.storage.plan import Create, Grow, Keep, PutBack, Remove, Step
from corral_drivers.storage.port import Settings

_ALLOCATED = 196 * 2**10
"""What an empty clone takes, in bytes, as qcow2 does."""


@dataclass(slots=True)
class World:
    """What outlives a driver: one pool's disks by owner and name, the bytes they take, and whose the pool is."""

    disks: dict[str, dict[str, Observed]] = field(default_factory=dict)
    mark: tuple[str, str] | None = None
    allocated: int = 0
    listeners: listeners.Listeners = field(default_factory=listeners.Listeners)
    """They are told the owner of a disk that comes or goes by its name."""

    def rename(self, owner: str, name: str) -> None:
        """Give a disk's file another name behind the drivers' back."""
        self._stand(owner, name, Standing.ASTRAY)

    def lose(self, owner: str, name: str) -> None:
        """Destroy a disk with everything that the pool holds of it, behind the drivers' back."""
        del self.disks[owner][name]
        self.listeners.tell(owner)

    def put_in_place(self, owner: str, name: str) -> None:
        """Have a disk that is there stand where it belongs, and held."""
        if name in self.disks.get(owner, {}):
            self._stand(owner, name, Standing.IN_PLACE)

    def _stand(self, owner: str, name: str, standing: Standing) -> None:
        self.disks[owner][name] = replace(self.disks[owner][name], standing=standing)
        self.listeners.tell(owner)


class Simulated:
    """`total` is the pool's room in bytes. `fail_at` is asked for an error before each step.

    `image_size` tells an image's virtual size in bytes by its path, and None where there is no such image; every image
    exists, and fits, where it is not given.
    """

    format = "qcow2"

    def __init__(
        self,
        settings: Settings,
        *,
        world: World | None = None,
        total: int = 2**40,
        image_size: Callable[[str], int | None] = lambda path: 0,
        fail_at: Callable[[object], errors.DriverError | None] | None = None,
    ) -> None:
        self._settings = settings
        self._world = world or World()
        self._total = total
        self._image_size = image_size
        self._fail_at = fail_at

    def path(self, owner: str, name: str) -> str:
        names.check(owner, name)
        return f"{self._settings.folder}/{owner}/{name}.qcow2"

    async def observe(self, owner: str) -> tuple[Observed, ...]:
        names.check(owner)
        self._claim()
        disks = self._world.disks.get(owner, {})
        return tuple(disks[name] for name in sorted(disks))

    async def owners(self) -> frozenset[str]:
        self._claim()
        return frozenset(self._world.disks)

    async def apply(self, step: Step) -> None:
        await asyncio.sleep(0)
        self._claim()
        if self._fail_at and (error := self._fail_at(step)):
            raise error
        match step:
            case Create(disk):
                self._create(disk)
            case Grow(owner, name, size):
                self._grow(owner, name, whole_sectors(size))
            case Remove(owner, name):
                self._remove(owner, name)
            case PutBack(owner, name) | Keep(owner, name):
                names.check(owner, name)
                self._world.put_in_place(owner, name)

    async def capacity(self) -> Capacity:
        self._claim()
        return Capacity(total=self._total, available=self._total - self._world.allocated)

    async def watch(self, changed: Callable[[str], None], missed: Callable[[], None]) -> Callable[[], None]:
        return self._world.listeners.add(changed)

    def _claim(self) -> None:
        ours = (self._settings.cloud, self._settings.host)
        self._world.mark = self._world.mark or ours
        if self._world.mark != ours:
            raise errors.Rejected(
                Cause.POOL_FOREIGN,
                f"the folder {self._settings.folder} is not this host's pool: it carries another's mark",
            )

    def _create(self, disk: Disk) -> None:
        path = self.path(disk.owner, disk.name)
        if disk.name in self._world.disks.get(disk.owner, {}):
            self._world.put_in_place(disk.owner, disk.name)
            return
        self._check_base(disk)
        if self._world.allocated + _ALLOCATED > self._total:
            raise errors.Unavailable(Cause.NO_SPACE, f"can't create disk {disk.owner}/{disk.name}: the pool is full")
        self._world.allocated += _ALLOCATED
        self._world.disks.setdefault(disk.owner, {})[disk.name] = Observed(
            owner=disk.owner,
            name=disk.name,
            path=path,
            format=self.format,
            size=whole_sectors(disk.size),
            allocated=_ALLOCATED,
            base=disk.base,
        )
        self._world.listeners.tell(disk.owner)

    def _check_base(self, disk: Disk) -> None:
        size = 0 if disk.base is None else self._image_size(disk.base)
        if size is None:
            raise errors.NotReady(
                Cause.IMAGE_MISSING, f"disk {disk.name} waits for its image, which is not on this host yet"
            )
        if whole_sectors(disk.size) < size:
            raise errors.Rejected(
                Cause.SMALLER_THAN_IMAGE, f"disk {disk.name} has {disk.size} bytes, fewer than the {size} of its image"
            )

    def _grow(self, owner: str, name: str, size: int) -> None:
        names.check(owner, name)
        disk = self._world.disks.get(owner, {}).get(name)
        if disk is None:
            raise errors.Unavailable(Cause.FAILED, f"can't grow disk {name}: it is not there")
        if disk.size > size:
            raise errors.Rejected(Cause.SHRINK_REFUSED, f"disk {name} has {disk.size} bytes and can't shrink to {size}")
        self._world.disks[owner][name] = replace(disk, size=size)

    def _remove(self, owner: str, name: str) -> None:
        names.check(owner, name)
        disks = self._world.disks.get(owner, {})
        if disk := disks.pop(name, None):
            self._world.allocated -= disk.allocated
        if not disks:
            self._world.disks.pop(owner, None)
        self._world.listeners.tell(owner)
