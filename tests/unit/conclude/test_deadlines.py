"""Every row of the table of deadlines is driven to Stalled, by the function whose conditions it bounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from corral import deadlines
from corral.api import objects
from corral.api.v1alpha1 import cloud, host, image, instance, ippool, network, virtualmachine
from corral.conclude import cloud as conclude_cloud
from corral.conclude import conditions, offers
from corral.conclude import host as conclude_host
from corral.conclude import virtualmachine as conclude_vm

from .said import NOW, after, raw, told, was

Status = (
    virtualmachine.VirtualMachineStatus
    | host.HostStatus
    | cloud.CloudStatus
    | image.ImageStatus
    | network.NetworkStatus
    | ippool.IPPoolStatus
)
Conclude = Callable[[Status | None, float], tuple[Status, float | None]]
"""The status before, and the seconds since NOW: the status, and when to look again."""

SUM = "a" * 64
GRACE = 45
ORDER = ("Scheduled", "AgentConnected", "ImageReady", "StorageReady", "NetworkReady", "PowerStateSynced")
BROKEN = {
    "Scheduled": conditions.false("Scheduled", "NoHostFits"),
    "AgentConnected": conditions.unknown("AgentConnected", "AgentSilent"),
    "ImageReady": conditions.false("ImageReady", "ImageFetching"),
    "StorageReady": conditions.false("StorageReady", "StorageFailed"),
    "NetworkReady": conditions.false("NetworkReady", "LinkFailed"),
    "PowerStateSynced": conditions.false("PowerStateSynced", "Starting"),
}


def machine(broken: str) -> Conclude:
    """A VirtualMachine with one thing wrong."""
    at = ORDER.index(broken)

    def fact(kind: str) -> conditions.Fact:
        if ORDER.index(kind) < at:
            return conditions.true(kind, "Held")
        return BROKEN[kind] if kind == broken else conditions.unknown(kind, "WaitingForEarlier")

    said = tuple(
        was(kind, fact(kind).status).model_copy(update={"reason": fact(kind).reason}) for kind in conclude_vm.PARTS
    )
    observed = conclude_vm.Observed(
        fact("Scheduled"),
        virtualmachine.Placement(host="h1", epoch=1) if at else None,
        fact("AgentConnected") if at else None,
        instance.InstanceStatus(conditions=said) if at > 1 else None,
    )

    def conclude(before: Status | None, seconds: float) -> tuple[Status, float | None]:
        spec = {"cpu": 1, "memory": "64Mi", "imageRef": {"name": "x"}, "terminationGracePeriodSeconds": GRACE}
        vm = objects.parsed(raw(spec, before), virtualmachine.VirtualMachineSpec, virtualmachine.VirtualMachineStatus)
        return conclude_vm.conclude(vm, observed, after(seconds))

    return conclude


def a_host(observed: conclude_host.Observed, **spec: object) -> Conclude:
    def conclude(before: Status | None, seconds: float) -> tuple[Status, float | None]:
        one = objects.parsed(raw(spec, before, namespace=""), host.HostSpec, host.HostStatus)
        return conclude_host.conclude(one, observed, after(seconds))

    return conclude


def an_image(before: Status | None, seconds: float) -> tuple[Status, float | None]:
    spec = {"source": {"url": "http://images.test/x", "sha256": SUM}, "format": "raw"}
    one = objects.parsed(raw(spec, before), image.ImageSpec, image.ImageStatus)
    held = {"h1": [host.HeldImage(sha256=SUM, held=False, reason="ImageUnreachable", message="No answer")]}
    return offers.conclude_image(one, held, after(seconds))


def a_network(before: Status | None, seconds: float) -> tuple[Status, float | None]:
    one = objects.parsed(raw({"poolRefs": [{"name": "p"}]}, before), network.NetworkSpec, network.NetworkStatus)
    return offers.conclude_network(one, (), after(seconds))


def a_pool(before: Status | None, seconds: float) -> tuple[Status, float | None]:
    one = objects.parsed(raw({"prefixes": ["10.7.0.0/24"]}, before), ippool.IPPoolSpec, ippool.IPPoolStatus)
    return offers.conclude_pool(one, {"first": ["10.7.0.128/25"]}, after(seconds))


def a_cloud(before: Status | None, seconds: float) -> tuple[Status, float | None]:
    one = objects.parsed(raw({}, before, namespace=""), cloud.CloudSpec, cloud.CloudStatus)
    return conclude_cloud.conclude(one, conclude_cloud.Observed(3, NOW, 1, ()), after(seconds))


SILENT_HYPERVISOR = host.HostStateStatus(
    conditions=(was("HypervisorReady", "False").model_copy(update={"reason": "HypervisorUnavailable"}),)
)
ALONE = host.HostStateStatus(
    conditions=(was("HypervisorReady", "True"), was("FabricReady", "False").model_copy(update={"reason": "FrrRefuses"}))
)
BGP = {"asn": 64512, "addresses": ["100.87.0.11"], "neighbors": [{"interface": "up1"}]}
ROWS: Mapping[str, tuple[Conclude, ...]] = {
    **{kind: (machine(kind),) for kind in ORDER},
    "AgentConnected": (
        machine("AgentConnected"),
        a_host(conclude_host.Observed(conditions.unknown("AgentConnected", "AgentNotSeen"), None)),
    ),
    "HypervisorReady": (
        a_host(conclude_host.Observed(conditions.true("AgentConnected", "Answering"), SILENT_HYPERVISOR)),
        a_host(conclude_host.Observed(conditions.true("AgentConnected", "Answering"), None)),
    ),
    "FabricReady": (
        a_host(conclude_host.Observed(conditions.true("AgentConnected", "Answering"), ALONE), bgp=BGP),
        a_host(
            conclude_host.Observed(
                conditions.true("AgentConnected", "Answering"),
                host.HostStateStatus(conditions=(was("HypervisorReady", "True"),)),
            ),
            bgp=BGP,
        ),
    ),
    "Fetchable": (an_image,),
    "PoolsFound": (a_network,),
    "Exclusive": (a_pool,),
    "Removing": (a_cloud,),
}
FINAL_AT_ONCE = {"Exclusive", "Removing"}
"""Rows whose every reason is final: waiting never helps, so that the deadline is never waited for."""


def test_every_row_has_its_test() -> None:
    assert ROWS.keys() == deadlines.DEADLINES.keys()


@pytest.mark.parametrize(
    ("row", "conclude"), [pytest.param(row, one, id=row) for row, some in ROWS.items() for one in some]
)
def test_past_its_deadline_it_is_stalled_and_not_before(row: str, conclude: Conclude) -> None:
    allowed = deadlines.DEADLINES[row] + (GRACE if row == "PowerStateSynced" else 0)
    first, look_again = conclude(None, 0)
    if row in FINAL_AT_ONCE:
        assert told(first.conditions)["Stalled"] == ("True", told(first.conditions)["Ready"][1])
        assert look_again is None
        return
    assert look_again == allowed
    just_before, look_again = conclude(first, allowed - 1)
    assert look_again == 1
    assert "Stalled" not in told(just_before.conditions)
    assert told(just_before.conditions)["Reconciling"][0] == "True"
    past, look_again = conclude(just_before, allowed)
    assert look_again is None
    assert told(past.conditions)["Stalled"] == ("True", told(past.conditions)["Ready"][1])
    assert "Reconciling" not in told(past.conditions)
    assert conclude(past, allowed + 999)[0] == past
