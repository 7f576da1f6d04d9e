"""Cooling: an address rests after its guest is gone, because others still know of that one: caches, flows, names.

Kept in the ledger of the API itself: the IPAllocation simply stays until the rest is over, so that nobody can be given
its address, whoever leads, and no write more is needed. Since when it rests is in memory alone: a controller that has
just begun counts from when it saw that the guest is gone, so that a rest may be longer than was asked, never shorter.
`controller.removal` asks.
"""

from __future__ import annotations

from collections.abc import Callable


class Cooling:
    """Allocations whose guest is gone, by their own uids; `now` is in seconds of a steady clock."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._since: dict[str, tuple[float, str]] = {}

    def left(self, allocation: str, pool: str, seconds: float) -> float:
        """For how many seconds the address of this allocation rests still; the first question begins its rest."""
        since, _ = self._since.setdefault(allocation, (self._now(), pool))
        return max(since + seconds - self._now(), 0.0)

    def forget(self, allocation: str) -> None:
        """The allocation is gone, or its guest is not."""
        self._since.pop(allocation, None)

    def count(self, pool: str) -> int:
        """How many addresses of this pool rest."""
        return sum(of == pool for _, of in self._since.values())
