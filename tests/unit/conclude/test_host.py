from __future__ import annotations

from typing import Any

import pytest

from corral.api import objects
from corral.api.v1alpha1 import host
from corral.conclude import conditions
from corral.conclude import host as conclude

from .said import NAMES, NOW, message, raw, told

ANSWERING = conditions.true("AgentConnected", "Answering")
SILENT = conditions.unknown("AgentConnected", "AgentSilent")
TAKEN = host.Allocated(guests=2, virtual_cpus=3, cpu=1, memory="1Gi")


def a_host(before: host.HostStatus | None = None, **spec: Any) -> conclude.Host:
    return objects.parsed(raw(spec, before, name="h1", namespace=""), host.HostSpec, host.HostStatus)


def says(fact: conditions.Fact) -> host.HostStateStatus:
    return host.HostStateStatus(
        observed_generation=1,
        capacity=host.Resources(cpu=4, memory="8Gi"),
        facts=host.Facts(hypervisor="QEMU 7.2.0"),
        conditions=conditions.written((fact,), (), generation=1, now=NOW, names=NAMES),
    )


WELL = says(conditions.true("HypervisorReady", "HypervisorAnswers"))


def test_a_host_is_ready_when_its_agent_and_its_hypervisor_answer() -> None:
    status, look_again = conclude.conclude(
        a_host(reserved={"memory": "1Gi"}), conclude.Observed(ANSWERING, WELL, TAKEN), NOW
    )
    assert told(status.conditions) == {
        "AgentConnected": ("True", "Answering"),
        "HypervisorReady": ("True", "HypervisorAnswers"),
        "Ready": ("True", "Usable"),
    }
    assert (status.capacity.memory, status.allocatable.memory, status.allocatable.cpu) == ("8Gi", "7Gi", 4)
    assert status.allocated == TAKEN
    assert look_again is None


def test_of_a_host_that_nobody_heard_of_nothing_is_known() -> None:
    agent = conditions.unknown("AgentConnected", "AgentNotSeen")
    status, _ = conclude.conclude(a_host(), conclude.Observed(agent, None, TAKEN), NOW)
    assert told(status.conditions)["Ready"] == ("Unknown", "AgentNotSeen")
    assert status.capacity == host.Resources()
    assert status.allocatable.memory == "0"


def test_a_silent_agent_leaves_what_it_said_and_names_its_host() -> None:
    known, _ = conclude.conclude(a_host(), conclude.Observed(ANSWERING, WELL, TAKEN), NOW)
    status, _ = conclude.conclude(a_host(known), conclude.Observed(SILENT, None, TAKEN), NOW)
    assert (status.capacity, status.facts) == (known.capacity, known.facts)
    assert message(status.conditions, "Ready").endswith("Next: read the agent's log on host h1")


def test_what_the_hypervisor_said_is_told_with_one_next_command() -> None:
    broken = says(conditions.false("HypervisorReady", "HypervisorUnavailable", "The socket refuses"))
    status, _ = conclude.conclude(a_host(), conclude.Observed(ANSWERING, broken, TAKEN), NOW)
    text = message(status.conditions, "Ready")
    assert text == "The socket refuses. Next: read the agent's log on host h1"


def test_a_newer_agent_may_know_reasons_that_we_do_not() -> None:
    newer = WELL.conditions[0].model_copy(update={"status": "False", "reason": "MoonInTheWay", "message": "Dark."})
    state = WELL.model_copy(update={"conditions": (newer,)})
    status, _ = conclude.conclude(a_host(), conclude.Observed(ANSWERING, state, TAKEN), NOW)
    assert told(status.conditions)["Ready"] == ("False", "ReasonNotKnown")


@pytest.mark.parametrize(
    ("capacity", "reserved", "left"), [("8Gi", "512Mi", "7680Mi"), ("1Gi", "1Gi", "0"), ("1Gi", "2Gi", "0")]
)
def test_what_is_reserved_is_not_for_guests(capacity: str, reserved: str, left: str) -> None:
    spec = host.HostSpec(reserved=host.Reserved(memory=reserved))
    assert conclude.allocatable(spec, host.Resources(cpu=2, memory=capacity)) == host.Resources(cpu=2, memory=left)


@pytest.mark.parametrize("memory", ["9999999999999999999Pi", "9999999999999999999.999999999Pi", "9223372036854775807"])
def test_a_host_that_boasts_is_no_error(memory: str) -> None:
    boast = host.Resources(cpu=1, memory=memory)
    found = conclude.allocatable(a_host(reserved={"memory": "1"}).spec, boast)
    assert found.memory in ("9223372036854775807", "9223372036854775806")
