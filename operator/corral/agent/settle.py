"""One room, observed, planned, applied, until nothing is left to do; and the account of a pass over several rooms."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from corral.conclude import instance as conclude
from corral_drivers import errors, steps

ObservedT = TypeVar("ObservedT")
StepT = TypeVar("StepT")

ROUNDS = 3
"""How often one pass applies a plan that is not empty; what then still differs is not ours to force."""

log = structlog.get_logger(__name__)


async def settle(
    observe: Callable[[], Awaitable[ObservedT]],
    plan: Callable[[ObservedT], steps.Plan[StepT]],
    apply: Callable[[StepT], Awaitable[None]],
    *,
    reason: str,
) -> conclude.Room:
    """Make the plan empty. `reason` is what is said of a room that takes every step and still differs."""
    left = plan(await observe())
    for _ in range(ROUNDS):
        if not left:
            return conclude.HOLDS
        for step in left.steps:
            await apply(step)
        left = plan(await observe())
    if not left:
        return conclude.HOLDS
    return conclude.Room(
        holds=False, reason=reason, detail=f"Every step was taken, and still is to do: {left}", retry=True
    )


class Account:
    """What one pass met: a driver's word is its room's outcome; what nobody foresaw is raised when the pass is over."""

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._defects: list[Exception] = []

    async def room(self, work: Awaitable[conclude.Room]) -> conclude.Room:
        """The outcome of this work, so that the next room has its turn whatever happens here."""
        try:
            return await work
        except errors.DriverError as error:
            log.warning("a step failed", owner=self._owner, cause=error.cause.value, why=error.message)
            return conclude.failed(error)
        except Exception as error:  # a defect in one room must not keep the others from their work
            self._defects.append(error)
            return conclude.WAITS

    def close(self) -> None:
        """Raise the first of what nobody foresaw, if there is any."""
        if self._defects:
            raise self._defects[0]
