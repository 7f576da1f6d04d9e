"""What a process does by the clock, and after each list of its watches: the controller and the agent share it.

Neither ends because the API server is away: that is said, and done again later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from corral import kube

_ASKED_EVERY = 2.0

log = structlog.get_logger(__name__)


async def every(seconds: float, act: Callable[[], Awaitable[None]]) -> None:
    """Act every so many seconds, until cancelled."""
    while True:
        await asyncio.sleep(seconds)
        try:
            await act()
        except kube.ApiError as error:
            log.warning("the API server did not answer a periodic look; the next one follows", why=str(error))


async def after_lists(
    listed: asyncio.Queue[kube.Collection], sweep: Callable[[kube.Collection], Awaitable[None]]
) -> None:
    """Sweep each collection that a watch has listed: what vanished in the gap before the list, no event tells of."""
    while True:
        where = await listed.get()
        try:
            await sweep(where)
        except kube.ApiError as error:
            log.warning("the API server did not answer the sweep after a list", kind=where.kind, why=str(error))
            await asyncio.sleep(_ASKED_EVERY)
            listed.put_nowait(where)
