"""The thread through everything: from a VirtualMachine to a guest, and back to nothing."""

from __future__ import annotations

import pytest

from corral.controller import world

from .simulated_cloud import SimulatedCloud, said

pytestmark = pytest.mark.api


async def test_a_virtual_machine_is_ready_with_host_and_address_and_leaves_nothing(cloud: SimulatedCloud) -> None:
    await cloud.vm("web")
    (vm,) = await cloud.ready("web")
    status = vm["status"]
    placement = status["placement"]
    assert status["printableStatus"] == "Running"
    assert placement["epoch"] == 1
    assert placement["addresses"] == [{"interface": "eth0", "address": "10.99.0.1"}]
    assert cloud.hosts[placement["host"]].running == {vm["metadata"]["uid"]}
    for kind in ("Scheduled", "AgentConnected", "ImageReady", "StorageReady", "NetworkReady", "PowerStateSynced"):
        assert (said(vm, kind) or ("",))[0] == "True", kind
    assert said(vm, "Reconciling") is None
    assert said(vm, "Stalled") is None
    (instance,) = await cloud.all(world.INSTANCES)
    assert instance["metadata"]["namespace"] == f"corral-host-{placement['host']}"
    await cloud.delete("web")
    assert await cloud.get(world.VMS, "web") is None
    await cloud.nothing_is_left()
