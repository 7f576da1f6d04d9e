from __future__ import annotations

import asyncio

import pytest

from corral import metrics
from corral.agent import measured
from corral_drivers import errors
from corral_drivers.storage import model as storage
from corral_drivers.storage import plan as storage_plan

from . import simulated_host

DISK = storage_plan.Create(storage.Disk(simulated_host.OWNER, "data", 2**20))


def count(counted: metrics.Metrics, room: str, call: str, outcome: str) -> float | None:
    labels = {"room": room, "call": call, "outcome": outcome}
    return counted.registry.get_sample_value("corral_outside_calls_total", labels)


async def test_what_is_measured_does_what_it_did() -> None:
    counted, host = metrics.Metrics(), simulated_host.Host()
    plain, made = host.rooms(), measured.rooms(host.rooms(), counted)
    assert made.storage.format == plain.storage.format
    assert made.storage.path("a", "b") == plain.storage.path("a", "b")
    assert await made.hypervisor.facts() == await plain.hypervisor.facts()
    await made.storage.apply(DISK)
    assert await made.storage.observe(simulated_host.OWNER) == await plain.storage.observe(simulated_host.OWNER) != ()
    assert count(counted, "hypervisor", "facts", "done") == 1
    assert count(counted, "storage", "create", "done") == 1
    assert count(counted, "storage", "observe", "done") == 1
    assert counted.registry.get_sample_value("corral_outside_call_seconds_count", {"room": "storage", "call": "create"})


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (errors.NotReady, "not-ready"),
        (errors.Unavailable, "unavailable"),
        (errors.Rejected, "rejected"),
    ],
)
async def test_the_three_words_of_a_driver_are_told_apart(error: type[errors.DriverError], outcome: str) -> None:
    counted, host = metrics.Metrics(), simulated_host.Host()
    host.fail_at = lambda _: error(storage.Cause.FAILED, "it does not work")
    with pytest.raises(error, match="it does not work"):
        await measured.rooms(host.rooms(), counted).storage.apply(DISK)
    assert count(counted, "storage", "create", outcome) == 1


async def test_a_defect_and_a_call_called_off_are_neither() -> None:
    counted = metrics.Metrics()

    def fail(_: object) -> None:
        raise ZeroDivisionError

    host = simulated_host.Host(fail_at=fail)
    made = measured.rooms(host.rooms(), counted)
    with pytest.raises(ZeroDivisionError):
        await made.storage.apply(DISK)
    assert count(counted, "storage", "create", "defect") == 1

    def call_off(_: object) -> None:
        raise asyncio.CancelledError

    host.fail_at = call_off
    with pytest.raises(asyncio.CancelledError):
        await made.storage.apply(DISK)
    assert count(counted, "storage", "create", "cancelled") == 1
