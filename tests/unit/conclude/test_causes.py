from __future__ import annotations

import enum
import importlib

import pytest

from corral import reasons
from corral.conclude import causes
from corral_drivers import errors

ROOMS = ("hypervisor", "image", "storage", "link", "routing", "seed", "bgp", "firewall", "dhcp")
CAUSES: list[enum.StrEnum] = [
    cause for room in ROOMS for cause in importlib.import_module(f"corral_drivers.{room}.model").Cause
]


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: f"{type(cause).__module__.split('.')[1]}.{cause.value}")
@pytest.mark.parametrize("word", [errors.NotReady, errors.Unavailable, errors.Rejected])
def test_every_cause_has_a_reason_of_the_catalogue(cause: enum.StrEnum, word: type[errors.DriverError]) -> None:
    reason = causes.reason(word(cause, "what happened"))
    assert reason in reasons.CATALOGUE
    # To wait for something earlier is nobody's fault and has no deadline: no error may be told like that.
    assert reason != "WaitingForEarlier"


def test_the_map_has_every_port_and_nothing_else() -> None:
    assert {(kind, cause) for kind, map_ in causes.REASONS.items() for cause in map_} == {
        (type(cause), cause.value) for cause in CAUSES
    }


def test_the_same_word_of_two_ports_is_two_causes() -> None:
    failed = {causes.reason(errors.Unavailable(cause, "")) for cause in CAUSES if cause.value == "Failed"}
    assert len(failed) == len(ROOMS)
