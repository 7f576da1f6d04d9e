from __future__ import annotations

from corral.agent import settle
from corral.conclude import instance as conclude
from corral_drivers import steps


async def test_a_room_that_never_comes_to_rest_is_told_and_tried_again_later() -> None:
    applied: list[str] = []

    async def observe() -> int:
        return len(applied)

    async def apply(step: str) -> None:
        applied.append(step)

    room = await settle.settle(observe, lambda seen: steps.Plan(("push",)), apply, reason="LinkFailed")
    assert applied == ["push"] * settle.ROUNDS
    assert (room.holds, room.reason, room.retry) == (False, "LinkFailed", True)
    assert room.detail.endswith("push")


async def test_a_room_at_rest_takes_no_step() -> None:
    async def observe() -> None:
        return None

    async def apply(step: str) -> None:
        raise AssertionError(step)

    empty: steps.Plan[str] = steps.Plan()
    assert await settle.settle(observe, lambda seen: empty, apply, reason="LinkFailed") == conclude.HOLDS
