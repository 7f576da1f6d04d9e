"""Every bad answer that an API server, or what stands before it, gives to the controller and to an agent: healed."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest

from corral.controller import process

from . import truth
from .fault_proxy import OF_WATCHES, Asked, Fault, Proxy, Rule
from .faulty_cloud import CLIENT_TIMEOUT, HEALED_WITHIN, FaultyCloud, of_agents, of_controller
from .simulated_cloud import message, said, until

pytestmark = pytest.mark.api

Record = Callable[[str, object], None]
"""`record_property`: what it is given stands in the report of `pytest -o junit_family=xunit1 --junitxml=FILE`."""

VICTIMS: dict[str, Callable[[Asked], bool]] = {"controller": of_controller, "agent": of_agents}
TO_REQUESTS = [fault for fault in Fault if fault not in OF_WATCHES]
TO_WATCHES = [fault for fault in Fault if fault in OF_WATCHES]
_NUMBERS = itertools.count(100)


@dataclass(frozen=True)
class Row:
    """One fault, to the first two writes about one guest that its victim makes on the way up, and down again."""

    fault: Fault
    victim: str
    name: str

    def rule(self) -> Rule:
        def matches(asked: Asked) -> bool:
            return asked.is_write and asked.is_about(self.name) and VICTIMS[self.victim](asked)

        return Rule(self.fault, matches, times=2, seconds=CLIENT_TIMEOUT + 0.5)


async def test_writes(faulty_cloud: FaultyCloud, proxy: Proxy, record_property: Record) -> None:
    """Every fault to each victim, all at once: each has a guest of its own."""
    pairs = itertools.product(TO_REQUESTS, VICTIMS)
    rows = [Row(fault, victim, f"vm-{next(_NUMBERS)}") for fault, victim in pairs]
    healed: dict[Row, list[float]] = {row: [] for row in rows}

    async def there_and_back(row: Row) -> None:
        for verb in (faulty_cloud.create, faulty_cloud.remove):
            rule = row.rule()
            proxy.rules.append(rule)
            begun = time.monotonic()
            await verb(row.name)
            proxy.rules.remove(rule)
            healed[row].append(round(time.monotonic() - begun, 1))
            assert rule.struck, f"{row}: nothing was struck by {verb.__name__}"

    async with asyncio.TaskGroup() as tasks:
        for row in rows:
            tasks.create_task(there_and_back(row))
    for row in rows:
        record_property(f"{row.fault.value}, to the {row.victim}: up, down", healed[row])
    assert await truth.falsehoods(faulty_cloud, running=[]) == []
    assert faulty_cloud.is_alive()


@pytest.mark.parametrize("fault", TO_WATCHES, ids=lambda fault: fault.value)
async def test_watches(faulty_cloud: FaultyCloud, proxy: Proxy, fault: Fault, record_property: Record) -> None:
    """Every watch of everybody is struck; what happens meanwhile is found: what is new, and what is gone."""
    old, new = (f"vm-{next(_NUMBERS)}" for _ in range(2))
    await faulty_cloud.create(old)
    of_each = [len(process.COLLECTIONS), 2 * len(faulty_cloud.hosts)]
    rules = [
        Rule(fault, matches, times=times, seconds=HEALED_WITHIN)
        for matches, times in zip(VICTIMS.values(), of_each, strict=True)
    ]
    proxy.rules = [*rules]

    async def struck() -> list[int]:
        return [len(rule.struck) for rule in rules]

    await until(struck, lambda counts: counts == of_each, HEALED_WITHIN)
    begun = time.monotonic()

    async def timed(verb: Callable[[str], Awaitable[None]], name: str) -> float:
        await verb(name)
        return round(time.monotonic() - begun, 1)

    took = await asyncio.gather(timed(faulty_cloud.create, new), timed(faulty_cloud.remove, old))
    record_property(f"{fault.value}: new after, old gone after", took)
    await faulty_cloud.is_true([new])
    await faulty_cloud.remove(new)
    assert faulty_cloud.is_alive()


@pytest.mark.parametrize("faults", [TO_REQUESTS[at::3] for at in range(3)], ids=lambda some: some[0].value)
async def test_starts(faulty_cloud: FaultyCloud, proxy: Proxy, faults: list[Fault], record_property: Record) -> None:
    """The first list of each kind by the watches is answered so, and some of our own."""
    name = f"vm-{next(_NUMBERS)}"
    await faulty_cloud.stop()
    proxy.rules = [_own(of_controller, faults[0]), _own(of_agents, faults[-1])]
    for where, fault in zip(process.COLLECTIONS, itertools.cycle(faults), strict=False):
        proxy.rules += [_listing(matches, where.plural, fault) for matches in VICTIMS.values()]
    await faulty_cloud.vm(name)
    begun = time.monotonic()
    await faulty_cloud.start()
    await faulty_cloud.up_and_running(name)
    record_property(f"{', '.join(fault.value for fault in faults)}: ready after", round(time.monotonic() - begun, 1))
    assert sum(len(rule.struck) for rule in proxy.rules) >= len(process.COLLECTIONS)
    await faulty_cloud.remove(name)
    assert faulty_cloud.is_alive()


async def test_a_write_that_is_refused_is_told_where_people_look(faulty_cloud: FaultyCloud, proxy: Proxy) -> None:
    name = f"vm-{next(_NUMBERS)}"
    proxy.rules = [
        Rule(
            Fault.REFUSED,
            lambda asked: asked.method == "POST" and asked.path.endswith("/instances") and asked.is_about(name),
            times=1000,
        )
    ]
    await faulty_cloud.vm(name)
    vm = await faulty_cloud.says(name, "WriteRefused")
    assert said(vm, "Stalled") == ("True", "WriteRefused")
    assert said(vm, "Scheduled") == ("True", "Placed")
    assert message(vm).startswith("the fault proxy says Forbidden. Next: kubectl auth can-i")
    assert vm["status"]["observedGeneration"] == vm["metadata"]["generation"]
    proxy.rules = []
    await faulty_cloud.up_and_running(name)
    await faulty_cloud.remove(name)


def _own(matches: Callable[[Asked], bool], fault: Fault) -> Rule:
    """This fault to one of our own lists."""
    return Rule(
        fault,
        lambda asked: asked.method == "GET" and "limit" in asked.query and matches(asked),
        skip=1,
        seconds=CLIENT_TIMEOUT + 0.5,
    )


def _listing(matches: Callable[[Asked], bool], plural: str, fault: Fault) -> Rule:
    """This fault to the first list of this kind that a watch begins with."""
    return Rule(
        fault,
        lambda asked: asked.path.endswith(f"/{plural}") and "limit" not in asked.query and matches(asked),
        seconds=CLIENT_TIMEOUT + 0.5,
    )
