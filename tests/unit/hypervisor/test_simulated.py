"""What only the simulated hypervisor has: it fails when told, and holds thousands of guests."""

from __future__ import annotations

import dataclasses
import time
import uuid

import pytest

from corral_drivers import errors
from corral_drivers.hypervisor import plan, port, simulated
from corral_drivers.hypervisor.model import Cause

from . import samples

SETTINGS = port.Settings(cloud=samples.DIRECT.mark.cloud, host=samples.DIRECT.mark.host)


async def test_it_fails_at_the_step_that_it_is_told() -> None:
    failure = errors.Unavailable(Cause.NO_MEMORY, "start: no memory")
    driver = simulated.Simulated(SETTINGS, fail_at=lambda step: failure if isinstance(step, plan.Start) else None)
    await driver.apply(plan.Define(samples.DIRECT))
    with pytest.raises(errors.Unavailable) as raised:
        await driver.apply(plan.Start(samples.DIRECT.uuid))
    assert raised.value is failure
    (seen,) = await driver.observe_all()
    assert (seen.persistent, seen.active) == (samples.DIRECT, None)


async def test_thousands_of_guests_are_cheap() -> None:
    driver = simulated.Simulated(SETTINGS)
    began = time.process_time()
    for number in range(5_000):
        domain = dataclasses.replace(samples.DIRECT, uuid=str(uuid.UUID(int=number)), name=f"guest-{number}")
        await driver.apply(plan.Define(domain))
        await driver.apply(plan.Start(domain.uuid))
    assert len(await driver.observe_all()) == 5_000
    assert time.process_time() - began < 10.0
    assert len({one.pid for one in await driver.observe_all()}) == 5_000


async def test_a_guest_holds_its_taps_as_they_were_at_its_start_until_its_nic_is_plugged_in_again() -> None:
    indices = dict.fromkeys((nic.tap for nic in samples.DIRECT.interfaces), 2)
    machine = simulated.Machine(index=indices.get)
    driver = simulated.Simulated(SETTINGS, machine=machine)
    tap = samples.DIRECT.interfaces[0].tap
    await driver.apply(plan.Define(samples.DIRECT))
    assert not machine.holds(tap)
    await driver.apply(plan.Start(samples.DIRECT.uuid))
    assert machine.holds(tap)
    indices[tap] = 9
    assert not machine.holds(tap)
    await driver.apply(plan.Replug(samples.DIRECT.uuid, tap))
    assert machine.holds(tap)
    await driver.apply(plan.PowerOff(samples.DIRECT.uuid))
    assert not machine.holds(tap)
