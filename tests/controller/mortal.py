"""A connection that ends its controller at one chosen write, for tests of what the next one makes of the rest."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any

from corral import kube
from corral.controller import world

_COUNTED = {world.VMS.plural, world.INSTANCES.plural, world.ALLOCATIONS.plural}


class Killed(BaseException):
    """What SIGKILL is to a process: nothing handles it."""


class Fate(enum.Enum):
    """What becomes of the chosen write."""

    DIE_BEFORE = enum.auto()
    DIE_AFTER = enum.auto()
    LOSE_THE_ANSWER = enum.auto()


class Mortal(kube.Kube):
    """Counts writes of VirtualMachines, Instances and IPAllocations; at the `at`-th, `fate` strikes, once."""

    at = 0
    fate = Fate.DIE_BEFORE
    count = 0
    is_dead = False

    @property
    def has_struck(self) -> bool:
        """Whether the chosen write was reached."""
        return self.count >= self.at

    async def create(self, where: kube.Collection, obj: kube.Object) -> kube.Object:
        self._before(where)
        made = await super().create(where, obj)
        self._after(where)
        return made

    async def patch(
        self, where: kube.Collection, seen: Mapping[str, Any], body: kube.Object, *, subresource: str | None = None
    ) -> kube.Object:
        self._before(where)
        patched = await super().patch(where, seen, body, subresource=subresource)
        self._after(where)
        return patched

    async def delete(self, where: kube.Collection, seen: Mapping[str, Any]) -> kube.Object | None:
        self._before(where)
        left = await super().delete(where, seen)
        self._after(where)
        return left

    def _before(self, where: kube.Collection) -> None:
        if self.is_dead:
            raise Killed
        if where.plural not in _COUNTED:
            return
        self.count += 1
        if self.count == self.at and self.fate is Fate.DIE_BEFORE:
            self.is_dead = True
            raise Killed

    def _after(self, where: kube.Collection) -> None:
        if where.plural not in _COUNTED or self.count != self.at:
            return
        if self.fate is Fate.DIE_AFTER:
            self.is_dead = True
            raise Killed
        if self.fate is Fate.LOSE_THE_ANSWER:
            raise kube.ApiUnavailable("a write", "its answer was lost")
