"""A storm of random faults over random verbs, and then calm: everything is exactly as it was asked for."""

from __future__ import annotations

import asyncio
import os
import random
import time

import pytest

from corral.controller import world

from .fault_proxy import OF_WATCHES, Asked, Fault, Proxy, Rule
from .faulty_cloud import CLIENT_TIMEOUT, FaultyCloud

pytestmark = pytest.mark.api

MACHINES = 20
STEPS = 3
PAUSE = 3.0
"""Seconds between two verbs on one VirtualMachine, at the longest."""

SHARE = 0.25
"""Of all requests and watches, how many are struck."""

_STRATEGIES = {"halt": "Halted", "start": "Always"}


@pytest.mark.parametrize("number", range(int(os.environ.get("CORRAL_TEST_ROUNDS", "1"))))
async def test_what_is_asked_for_in_a_storm_is_so_after_it(
    faulty_cloud: FaultyCloud, proxy: Proxy, number: int
) -> None:
    seed = int(os.environ.get("CORRAL_TEST_SEED", str(time.time_ns() % 1_000_000))) + number
    storm = Storm(faulty_cloud, random.Random(seed))
    await storm.calm()
    proxy.choose = storm.choose
    await asyncio.gather(*(storm.live(f"s{seed}-{index}") for index in range(MACHINES)))
    proxy.choose = lambda _asked: None
    try:
        for name, reason in storm.wanted.items():
            await faulty_cloud.up_and_running(name, reason)
        running = [name for name, reason in storm.wanted.items() if reason == "Running"]
        halted = [name for name, reason in storm.wanted.items() if reason == "Halted"]
        await faulty_cloud.is_true(running, halted)
        assert faulty_cloud.is_alive()
    except AssertionError as error:
        error.add_note(f"CORRAL_TEST_SEED={seed} CORRAL_TEST_ROUNDS=1 gives the same verbs; struck: {storm.struck}")
        raise
    assert storm.struck > MACHINES
    await asyncio.gather(*(faulty_cloud.remove(name) for name in storm.wanted))
    await faulty_cloud.is_true([])


class Storm:
    """Verbs and faults by one source of chance; `wanted` is what there must be, and why it is Ready."""

    def __init__(self, cloud: FaultyCloud, chance: random.Random) -> None:
        self.wanted: dict[str, str] = {}
        self.struck = 0
        self._cloud = cloud
        self._chance = chance
        self._faults = {of: [fault for fault in Fault if (fault in OF_WATCHES) == of] for of in (True, False)}

    def choose(self, asked: Asked) -> Rule | None:
        """Whether a request is struck, and by what."""
        if self._chance.random() > SHARE:
            return None
        self.struck += 1
        fault = self._chance.choice(self._faults[asked.is_watch])
        return Rule(fault, lambda _asked: True, seconds=self._chance.uniform(0.1, 1.5 * CLIENT_TIMEOUT))

    async def calm(self) -> None:
        """One VirtualMachine before the storm: by then everything watches."""
        name = f"calm-{self._chance.randrange(10**9)}"
        await self._cloud.create(name)
        self.wanted[name] = "Running"

    async def live(self, name: str) -> None:
        """A VirtualMachine that is made, and asked for something else now and then, and perhaps deleted."""
        await asyncio.sleep(self._chance.uniform(0.0, PAUSE))
        await self._cloud.vm(name)
        self.wanted[name] = "Running"
        for _ in range(STEPS):
            await asyncio.sleep(self._chance.uniform(0.0, PAUSE))
            verb = self._chance.choice([*_STRATEGIES, "delete", "nothing"])
            if verb in _STRATEGIES:
                await self._cloud.patch(world.VMS, name, {"runStrategy": _STRATEGIES[verb]})
                self.wanted[name] = "Halted" if verb == "halt" else "Running"
            elif verb == "delete":
                await self._cloud.delete(name)
                del self.wanted[name]
                return
