"""A new controller asks every host what it runs before it places anything; and gives agents back what was taken."""

from __future__ import annotations

import pytest

from corral import kube
from corral.controller import host as controller_host
from corral.controller import world

from .metal import Metal
from .simulated_cloud import SimulatedCloud, message, until

pytestmark = pytest.mark.api


async def roll_call(cloud: SimulatedCloud, metal: Metal) -> str:
    """What the HostState of this host asks with."""
    state = await cloud.admin.get(world.HOST_STATES, f"corral-host-{metal.name}", metal.name)
    assert state is not None
    return str(state["spec"].get("rollCall", ""))


async def test_a_controller_calls_the_roll_once_and_only_when_something_is_placed(cloud: SimulatedCloud) -> None:
    await cloud.vm("one")
    await cloud.ready("one")
    first = {name: await roll_call(cloud, metal) for name, metal in cloud.hosts.items()}
    await cloud.vm("two")
    await cloud.ready("two")
    assert {name: await roll_call(cloud, metal) for name, metal in cloud.hosts.items()} == first

    await cloud.stop_controller()
    await cloud.start_controller()
    await cloud.patch(world.VMS, "one", {"runStrategy": "Halted"})
    await cloud.ready("one", reason="Halted")
    assert {name: await roll_call(cloud, metal) for name, metal in cloud.hosts.items()} == first
    await cloud.vm("three")
    await cloud.ready("three")
    again = {name: await roll_call(cloud, metal) for name, metal in cloud.hosts.items()}
    assert len(set(again.values())) == 1
    assert not set(again.values()) & set(first.values())


async def test_a_silent_host_is_waited_for_and_named_but_not_for_ever(cloud: SimulatedCloud) -> None:
    silent, *_ = cloud.hosts.values()
    await cloud.stop_controller()
    await cloud.stop_agent(silent)
    await cloud.start_controller(roll_call_within=5.0)
    await cloud.vm("new")
    waiting = await cloud.says("new", "WaitingForHosts", kind="Scheduled")
    assert message(waiting, "Scheduled").startswith(f"Host {silent.name} has not said yet what it runs.")
    await cloud.says("new", "Placed", kind="Scheduled", status="True")


async def test_a_silent_host_that_answers_ends_the_wait(cloud: SimulatedCloud) -> None:
    silent, *_ = cloud.hosts.values()
    await cloud.stop_controller()
    await cloud.stop_agent(silent)
    await cloud.start_controller(roll_call_within=600.0)
    await cloud.vm("new")
    await cloud.says("new", "WaitingForHosts", kind="Scheduled")
    cloud.start_agent(silent)
    await cloud.ready("new", patience=40.0)


async def test_rights_of_an_agent_that_were_taken_by_hand_are_given_back(cloud: SimulatedCloud) -> None:
    metal, *_ = cloud.hosts.values()
    namespace = f"corral-host-{metal.name}"
    await cloud.stop_controller()
    await cloud.start_controller(sweep_every=0.5)
    seen = await cloud.admin.get(kube.ROLE_BINDINGS, namespace, controller_host.AGENT_ROLE)
    assert seen is not None
    await cloud.admin.delete(kube.ROLE_BINDINGS, seen)

    async def look() -> kube.Object | None:
        return await cloud.admin.get(kube.ROLE_BINDINGS, namespace, controller_host.AGENT_ROLE)

    found = await until(look, lambda one: one is not None)
    assert found["subjects"] == seen["subjects"]
    assert found["metadata"]["uid"] != seen["metadata"]["uid"]
