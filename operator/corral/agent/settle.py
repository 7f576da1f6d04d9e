"""One room, observed, planned, applied, until nothing is left to do; and the account of a pass over several rooms."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
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
    """What one pass met and did: a driver's word is its room's outcome; what nobody foresaw is raised at its end."""

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._taken: list[tuple[str, object]] = []
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

    def noting(self, room: str, apply: Callable[[StepT], Awaitable[None]]) -> Callable[[StepT], Awaitable[None]]:
        """The same `apply`; what it does is noted as this room's."""

        async def noted(step: StepT) -> None:
            await apply(step)
            self._taken.append((room, step))

        return noted

    def put_back(self, held: Collection[str]) -> frozenset[str]:
        """Say each step that was taken in a room of these, which held before; return the rooms."""
        back = [(room, step) for room, step in self._taken if room in held]
        for room, step in back:
            log.warning("put back what was changed on the host", owner=self._owner, room=room, step=str(step))
        return frozenset(room for room, _ in back)

    def close(self) -> None:
        """Raise the first of what nobody foresaw, if there is any."""
        if self._defects:
            raise self._defects[0]
