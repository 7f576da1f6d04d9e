from __future__ import annotations

import asyncio

import pytest

from corral.agent.fetches import Fetches
from corral_drivers import errors
from corral_drivers.image import model, plan

from .simulated_host import Agent, Host, nothing_fails

STEP = plan.Fetch(model.Image("a" * 64, "http://user:secret@one.example/x?token=1", model.Format.QCOW2))


def unreachable(step: object) -> errors.DriverError | None:
    return errors.Unavailable(model.Cause.UNREACHABLE, "no answer") if isinstance(step, plan.Fetch) else None


def begun(host: Host) -> tuple[Agent, Fetches]:
    agent = Agent(host)
    return agent, agent.fetches


async def test_who_asked_is_woken_when_the_image_is_here_and_one_fetch_serves_all() -> None:
    host = Host()
    agent, fetches = begun(host)
    for owner in ("u2", "u1", "u2"):
        assert fetches.ask(STEP, owner).reason == "ImageFetching"
    await agent.fetched()
    assert (host.woken, host.steps) == (["u1", "u2"], 1)
    assert list(fetches.unfinished()) == []


async def test_who_asked_is_woken_to_tell_of_a_failure_which_stays_told_while_it_is_tried_again() -> None:
    host = Host(fail_at=unreachable)
    agent, fetches = begun(host)
    fetches.ask(STEP, "u1")
    await agent.fetched()
    assert host.woken == ["u1"]
    assert fetches.ask(STEP, "u1").look_again == pytest.approx(2.0)
    host.now += 2.0
    again = fetches.ask(STEP, "u1")
    assert (again.reason, again.retry) == ("ImageUnreachable", False)
    ((image, error),) = fetches.unfinished()
    assert (image, str(error)) == (STEP.image, "no answer")
    host.fail_at = nothing_fails
    await agent.fetched()
    assert list(fetches.unfinished()) == []


async def test_a_failure_is_not_tried_again_before_its_time() -> None:
    host = Host(fail_at=unreachable)
    agent, fetches = begun(host)
    for _ in range(5):
        fetches.ask(STEP, "u1")
        await agent.fetched()
    assert host.steps == 1


async def test_what_failed_is_forgotten_with_the_last_who_waited_for_it() -> None:
    host = Host(fail_at=unreachable)
    agent, fetches = begun(host)
    for owner in ("u1", "u2"):
        fetches.ask(STEP, owner)
    await agent.fetched()
    fetches.forget("u1")
    assert len(list(fetches.unfinished())) == 1
    host.woken.clear()
    fetches.forget("u2")
    assert (list(fetches.unfinished()), host.woken) == ([], ["u2"])


async def test_who_no_longer_waits_is_not_woken_by_what_was_under_way() -> None:
    host = Host(fail_at=unreachable)
    agent, fetches = begun(host)
    fetches.ask(STEP, "u1")
    fetches.forget("u1")
    await agent.fetched()
    assert host.woken == []
    assert list(fetches.unfinished()) == []


async def test_a_defect_in_a_driver_is_told_as_corrals_own(capsys: pytest.CaptureFixture[str]) -> None:
    def defect(step: object) -> errors.DriverError | None:
        raise ZeroDivisionError

    host = Host(fail_at=defect)
    agent, fetches = begun(host)
    fetches.ask(STEP, "u1")
    await agent.fetched()
    told = fetches.ask(STEP, "u1")
    assert told.reason == "ImageFailed"
    assert "ZeroDivision" not in told.detail


async def test_closing_calls_off_what_is_under_way() -> None:
    agent, fetches = begun(Host())
    fetches.ask(STEP, "u1")
    await fetches.close()
    await asyncio.sleep(0)
    assert agent.host.woken == []
    assert not agent.host.images.held
