"""The guard against mass deletion: a share of the fleet that vanishes at once is an accident until a person says not.

Whoever removes something of a VirtualMachine asks here first. It is in memory: after a restart the window begins anew;
but what is found held is held again from the start.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """How many removals within `window` seconds are believed: `share` (0 to 1) of the fleet, `floor` in any case."""

    share: float = 0.2
    floor: int = 50
    window: float = 600.0


class Guard:
    """Removals by the uid of the VirtualMachine; `now` is in seconds of any steady clock."""

    def __init__(self) -> None:
        self.limits = Limits()
        self._granted: OrderedDict[str, float] = OrderedDict()
        self._held: OrderedDict[str, float] = OrderedDict()
        self._released: set[str] = set()

    def may_remove(self, uid: str, *, fleet: int, now: float) -> bool:
        """Whether this VirtualMachine's Instance may go; `fleet` is how many VirtualMachines there are still."""
        while self._granted and next(iter(self._granted.values())) <= now - self.limits.window:
            self._granted.popitem(last=False)
        if uid in self._granted:
            return True
        if uid in self._released:
            self._held.pop(uid, None)
            return True
        believed = max(self.limits.floor, int(self.limits.share * (fleet + len(self._granted) + len(self._held))))
        # Once something is held, everything is: the rest of an accident is part of it.
        if self._held or len(self._granted) >= believed:
            self._held.setdefault(uid, now)
            return False
        self._granted[uid] = now
        return True

    def forget(self, uid: str) -> bool:
        """This one is no longer to be removed: it is gone, or it came back. Whether it was held."""
        self._released.discard(uid)
        return self._held.pop(uid, None) is not None

    def release(self) -> tuple[str, ...]:
        """A person said to go on: what is held now may go. Their uids."""
        uids = tuple(self._held)
        self._released |= set(uids)
        self._held.clear()
        return uids

    def hold(self, uid: str, now: float) -> None:
        """This removal was held when this process began, and still is."""
        self._held.setdefault(uid, now)

    @property
    def held(self) -> int:
        """How many removals wait for a person."""
        return len(self._held)

    @property
    def held_since(self) -> float | None:
        """When the first of them was asked for."""
        return next(iter(self._held.values()), None)
