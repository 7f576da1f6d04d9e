"""What a port's `watch` tells, for the contracts of all rooms that have one."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

WITHIN = 15.0
"""Seconds: far more than any driver needs, on a machine that does other things too."""


class Watched(Protocol):
    """A port that can be watched."""

    async def watch(self, changed: Callable[[str], None], missed: Callable[[], None]) -> Callable[[], None]: ...


class Heard(list[str]):
    """Of whom a watch told, in its order."""

    async def of(self, whom: str) -> None:
        """Wait until it tells of this one."""
        deadline = time.monotonic() + WITHIN
        while whom not in self:
            assert time.monotonic() < deadline, f"nothing was told of {whom}, only of {sorted(set(self))}"
            await asyncio.sleep(0.01)

    async def only(self, whom: str, disturb: Callable[[], Awaitable[None]]) -> None:
        """What came before this disturbance was told of nobody but this one, of whom it makes the watch tell."""
        await disturb()
        await self.of(whom)
        assert set(self) == {whom}


@contextlib.asynccontextmanager
async def hearing(port: Watched) -> AsyncIterator[Heard]:
    """Watch for as long as the block is."""
    heard = Heard()
    end = await port.watch(heard.append, lambda: heard.append("missed"))
    try:
        yield heard
    finally:
        end()
