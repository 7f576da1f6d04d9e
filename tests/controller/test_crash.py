"""An agent or the controller dies at any call of any verb: the next one finds the rest to do, and no more."""

from __future__ import annotations

import collections
import pathlib
import time
from collections.abc import AsyncIterator, Iterator, Mapping

import pytest
import pytest_asyncio

from corral import kube
from corral_lab.control_plane import plane

from . import simulated_cloud
from .crash import VERBS, Agent, Controller, Sweep, Tried, Verb
from .mortal import Moment

pytestmark = [
    pytest.mark.api,
    # Kopf was about to begin one when its process died.
    pytest.mark.filterwarnings("ignore:coroutine 'worker' was never awaited:RuntimeWarning"),
]

HOSTS = {"agent": 6, "controller": 1}
"""Of how many hosts the cloud is in which these may die: as many guests as there are hosts are one on each."""


@pytest_asyncio.fixture(params=HOSTS)
async def sweep(
    request: pytest.FixtureRequest,
    control_plane: plane.ControlPlane,
    admin: kube.Kube,
    crds: None,
    roles: None,
    tmp_path: pathlib.Path,
) -> AsyncIterator[Sweep]:
    """Who may die: all agents at once, or the controller."""
    hosts = HOSTS[request.param]
    async with simulated_cloud.running(control_plane, admin, tmp_path, hosts=hosts, prefix="10.99.0.0/22") as cloud:
        controller, agents = Controller(cloud), [Agent(cloud, metal) for metal in cloud.hosts.values()]
        for process in (controller, *agents):
            await process.replace()
        yield Sweep(cloud, controller, agents if request.param == "agent" else [controller])
        for process in (controller, *agents):
            await process.end()


async def test_death_at_any_call_changes_nothing_of_the_end(sweep: Sweep) -> None:
    begun = time.monotonic()
    tried = await sweep.over(VERBS)
    print(*_table(tried), f"in {time.monotonic() - begun:.0f} s", sep="\n")  # noqa: T201 - figures, shown with -rP
    for verb in VERBS:
        # Who only begins changes little, or nothing.
        wanted = {Moment.BEFORE} if verb.at_birth else set(Moment)
        assert {moment for moment, _ in tried[verb]} >= wanted, verb.name


def _table(tried: Mapping[Verb, Tried]) -> Iterator[str]:
    """Crash points by verb and by what came of the call, then by kind of call."""
    yield f"{'verb':<12}" + "".join(f"{moment.value:>12}" for moment in Moment)
    for verb, deaths in tried.items():
        counts = [sum(count for (at, _), count in deaths.items() if at is moment) for moment in Moment]
        yield f"{verb.name:<12}" + "".join(f"{count:>12}" for count in counts)
    kinds: collections.Counter[str] = collections.Counter()
    for deaths in tried.values():
        for (_, kind), count in deaths.items():
            kinds[kind] += count
    for kind, count in sorted(kinds.items()):
        yield f"{kind:<40}{count:>8}"
    yield f"{kinds.total()} crash points"
