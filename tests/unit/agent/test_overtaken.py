"""A status that is written while somebody else writes: no event tells of what is older than our own write's answer."""

from __future__ import annotations

import copy
import time

from corral import kube, store
from corral.agent import reports
from corral.agent.instance import INSTANCES

from .kept_api import KeptApi

SAID = {"observedGeneration": 1, "powerState": "Running"}


def writer(api: KeptApi) -> reports.Reports:
    return reports.Reports(api, store.Store(), INSTANCES, time.monotonic)


async def test_what_nobody_else_wrote_to_is_not_looked_at_again() -> None:
    api = KeptApi()
    assert await writer(api).write(copy.deepcopy(api.put()), dict(SAID)) is None
    assert api.objects["i"]["status"] == SAID


async def test_a_spec_that_came_meanwhile_is_looked_at() -> None:
    api = KeptApi()
    seen = copy.deepcopy(api.put())
    api.put(runStrategy="Halted")
    assert await writer(api).write(seen, dict(SAID)) is not None


async def test_a_status_that_came_meanwhile_is_looked_at() -> None:
    api = KeptApi()
    seen = copy.deepcopy(api.put())
    other: kube.Object = {"status": {"conditions": []}}
    await api.patch(INSTANCES, seen, other, subresource="status")
    assert await writer(api).write(seen, dict(SAID)) is not None
