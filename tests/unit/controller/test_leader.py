"""Who leads, told by a Lease that is kept in memory: the clock and the API server are the tests' own."""

from __future__ import annotations

import asyncio
import copy
import datetime
from collections.abc import Mapping
from typing import Any

import pytest

from corral import kube
from corral.controller import leader

NOW = datetime.datetime(2026, 1, 31, 12, 0, tzinfo=datetime.UTC)
TIMES = leader.Times(lasts=15.0, stops_after=10.0, renewed_every=0.02, asked_every=0.01)


class OneLease(kube.Kube):
    """The API server's Lease; while it is `away` nothing is answered, and what it `loses` takes effect."""

    def __init__(self) -> None:
        self.lease: kube.Object | None = None
        self.away = False
        self.loses = False
        self.refuses = False
        self.writes = 0

    async def get(self, where: kube.Collection, namespace: str | None, name: str) -> kube.Object | None:
        self._answer()
        assert (where, namespace, name) == (kube.LEASES, leader.NAMESPACE, leader.NAME)
        return copy.deepcopy(self.lease)

    async def create(self, where: kube.Collection, obj: kube.Object) -> kube.Object:
        self._answer()
        if self.refuses:
            raise kube.ApiRefused("POST", "namespaces corral-system not found", 404)
        if self.lease is not None:
            raise kube.ApiConflict("POST", "it exists", 409)
        return self._keep({"metadata": obj["metadata"] | {"uid": f"u{self.writes}"}, "spec": obj["spec"]})

    async def patch(
        self, where: kube.Collection, seen: Mapping[str, Any], body: kube.Object, *, subresource: str | None = None
    ) -> kube.Object:
        self._answer()
        if self.lease is None:
            raise kube.ApiRefused("PATCH", "not found", 404)
        if body["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
            raise kube.ApiConflict("PATCH", "it has been modified", 409)
        merged = {key: value for key, value in (self.lease["spec"] | body["spec"]).items() if value is not None}
        return self._keep({"metadata": self.lease["metadata"], "spec": merged})

    def _keep(self, lease: kube.Object) -> kube.Object:
        self.writes += 1
        lease["metadata"] |= {"resourceVersion": str(self.writes)}
        self.lease = copy.deepcopy(lease)
        if self.loses:
            raise kube.ApiUnavailable("PATCH", "its answer was lost")
        return lease

    def _answer(self) -> None:
        if self.away:
            raise kube.ApiUnavailable("GET", "the API server does not answer")

    @property
    def holder(self) -> str | None:
        return None if self.lease is None else self.lease["spec"].get("holderIdentity")


class Time:
    """A steady clock that only the test moves."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def leadership(self, api: OneLease, who: str) -> leader.Leadership:
        return leader.Leadership(api, who, TIMES, leader.Clock(lambda: self.seconds, lambda: NOW))


async def soon(task: asyncio.Task[None]) -> None:
    async with asyncio.timeout(30):
        await task


async def waits(task: asyncio.Task[None]) -> None:
    """It looked several times, and is not done."""
    await asyncio.sleep(0.1)
    assert not task.done()


async def test_one_of_two_leads_and_the_other_follows_when_it_is_released() -> None:
    api, time = OneLease(), Time()
    one, other = time.leadership(api, "one"), time.leadership(api, "other")
    await one.acquire()
    assert (one.may_write(), other.may_write(), api.holder) == (True, False, "one")
    standby = asyncio.create_task(other.acquire())
    await waits(standby)
    await one.release()
    assert not one.may_write()
    await soon(standby)
    assert (other.may_write(), api.holder) == (True, "other")
    assert api.lease is not None
    assert api.lease["spec"]["leaseTransitions"] == 1


async def test_who_falls_silent_writes_nothing_before_another_leads() -> None:
    api, time = OneLease(), Time()
    one, other = time.leadership(api, "one"), time.leadership(api, "other")
    await one.acquire()
    standby = asyncio.create_task(other.acquire())
    await waits(standby)
    time.seconds += TIMES.stops_after
    assert not one.may_write()
    await waits(standby)
    time.seconds += TIMES.lasts - TIMES.stops_after + 0.1
    await soon(standby)
    assert api.holder == "other"


async def test_a_standby_counts_from_when_it_saw_the_last_renewal() -> None:
    api, time = OneLease(), Time()
    one, other = time.leadership(api, "one"), time.leadership(api, "other")
    await one.acquire()
    time.seconds += 1_000_000
    standby = asyncio.create_task(other.acquire())
    await waits(standby)
    standby.cancel()


async def test_renewals_keep_the_lead_and_keep_the_other_waiting() -> None:
    api, time = OneLease(), Time()
    one, other = time.leadership(api, "one"), time.leadership(api, "other")
    await one.acquire()
    tasks = [asyncio.create_task(one.keep()), asyncio.create_task(other.acquire())]
    for _ in range(8):
        time.seconds += 5
        await asyncio.sleep(0.1)
    assert one.may_write()
    assert not any(task.done() for task in tasks)
    assert api.writes > 8
    for task in tasks:
        task.cancel()


async def test_who_wakes_after_another_took_over_leads_no_more() -> None:
    api, time = OneLease(), Time()
    one, other = time.leadership(api, "one"), time.leadership(api, "other")
    await one.acquire()
    standby = asyncio.create_task(other.acquire())
    await waits(standby)
    time.seconds += TIMES.lasts + 1
    await soon(standby)
    writes = api.writes
    await soon(asyncio.create_task(one.keep()))
    await one.release()
    assert (one.may_write(), api.holder, api.writes) == (False, "other", writes)


async def test_who_is_robbed_leads_no_more() -> None:
    api, time = OneLease(), Time()
    one = time.leadership(api, "one")
    await one.acquire()
    assert api.lease is not None
    api.lease["spec"]["holderIdentity"] = "somebody"
    api.lease["metadata"]["resourceVersion"] = "999"
    await soon(asyncio.create_task(one.keep()))
    assert not one.may_write()


async def test_a_lost_answer_to_a_renewal_costs_nothing() -> None:
    api, time = OneLease(), Time()
    one = time.leadership(api, "one")
    await one.acquire()
    keeping = asyncio.create_task(one.keep())
    api.loses = True
    time.seconds += 5
    await asyncio.sleep(0.1)
    api.loses = False
    time.seconds += 4
    await asyncio.sleep(0.1)
    time.seconds += 9
    assert one.may_write()
    await waits(keeping)
    keeping.cancel()


async def test_an_api_server_that_is_away_ends_the_lead_and_gives_it_back() -> None:
    api, time = OneLease(), Time()
    one = time.leadership(api, "one")
    await one.acquire()
    api.away = True
    keeping = asyncio.create_task(one.keep())
    await waits(keeping)
    time.seconds += TIMES.stops_after
    assert not one.may_write()
    await waits(keeping)
    time.seconds += TIMES.lasts - TIMES.stops_after
    await soon(keeping)
    again = asyncio.create_task(one.acquire())
    await waits(again)
    api.away = False
    await soon(again)
    assert one.may_write()


async def test_who_could_not_renew_for_a_while_goes_on_where_nobody_else_led() -> None:
    api, time = OneLease(), Time()
    one = time.leadership(api, "one")
    await one.acquire()
    api.away = True
    keeping = asyncio.create_task(one.keep())
    time.seconds += (TIMES.stops_after + TIMES.lasts) / 2
    assert not one.may_write()
    await waits(keeping)
    api.away = False
    await waits(keeping)
    assert one.may_write()
    keeping.cancel()


async def test_a_lease_that_is_deleted_is_made_anew() -> None:
    api, time = OneLease(), Time()
    one = time.leadership(api, "one")
    await one.acquire()
    api.lease = None
    await soon(asyncio.create_task(one.keep()))
    await one.acquire()
    assert api.holder == "one"


async def test_a_refusal_is_waited_out() -> None:
    api, time = OneLease(), Time()
    api.refuses = True
    standby = asyncio.create_task(time.leadership(api, "one").acquire())
    await waits(standby)
    api.refuses = False
    await soon(standby)


async def test_to_release_what_one_does_not_hold_is_no_write() -> None:
    api, time = OneLease(), Time()
    one, other = time.leadership(api, "one"), time.leadership(api, "other")
    await one.acquire()
    await other.release()
    assert (api.holder, api.writes) == ("one", 1)


async def test_a_release_that_fails_is_no_error() -> None:
    api, time = OneLease(), Time()
    one = time.leadership(api, "one")
    await one.acquire()
    api.away = True
    await one.release()
    assert not one.may_write()


@pytest.mark.parametrize("lasts", [1.0, 6.0, 15.0, 60.0])
def test_times_keep_their_order(lasts: float) -> None:
    times = leader.Times.of(lasts)
    assert times.lasts == lasts
    assert times.asked_every < times.renewed_every < times.stops_after < times.lasts
    assert times.renewed_every + 2 * times.asked_every < times.stops_after


def test_no_two_have_one_name() -> None:
    assert leader.identity() != leader.identity()
