"""Where a guest goes, and what keeps two from having the same memory or address, or one from having two places."""

from __future__ import annotations

import asyncio

import pytest

from corral import allocate, kube
from corral.controller import host as controller_host
from corral.controller import world

from .simulated_cloud import SimulatedCloud, message, said, until

pytestmark = pytest.mark.api


async def test_a_guest_that_no_host_has_memory_for_waits_for_one_that_has(cloud: SimulatedCloud) -> None:
    await cloud.vm("large", classRef=None, cpu=1, memory="6Gi")
    vm = await cloud.says("large", "NoHostFits")
    assert message(vm).startswith("0/2 hosts: 2 too little memory.")
    await cloud.vm("wide", classRef=None, cpu=65, memory="64Mi")
    assert message(await cloud.says("wide", "NoHostFits")).startswith("0/2 hosts: 2 too few CPUs.")
    metal = await cloud.add_host("large", memory=8 << 30)
    (vm,) = await cloud.ready("large")
    assert vm["status"]["placement"]["host"] == metal.name


async def test_a_guest_waits_until_another_ones_memory_is_free(cloud: SimulatedCloud) -> None:
    size = {"classRef": None, "cpu": 1, "memory": "3Gi"}
    for name in ("a", "b"):
        await cloud.vm(name, **size)
    await cloud.ready("a", "b")
    await cloud.vm("c", **size)
    await cloud.says("c", "NoHostFits")
    await cloud.delete("a")
    await cloud.ready("b", "c")


async def test_twenty_guests_on_hosts_with_room_for_twenty_are_never_booked_twice(cloud: SimulatedCloud) -> None:
    # Two hosts of 4 GiB: ten guests of 409 MiB each, and no eleventh.
    names = [f"vm-{number}" for number in range(22)]
    await asyncio.gather(*(cloud.vm(name, classRef=None, cpu=1, memory="409Mi") for name in names))
    vms = await until(
        lambda: cloud.all(world.VMS),
        lambda found: sum(said(vm, "Ready") == ("True", "Running") for vm in found) == 20,
    )
    await asyncio.sleep(0.3)
    assert sorted(len(metal.running) for metal in cloud.hosts.values()) == [10, 10]
    addresses = {obj["spec"]["address"] for obj in await cloud.all(world.ALLOCATIONS)}
    assert len(addresses) == 20
    vms = await cloud.all(world.VMS)
    assert sum(said(vm, "Ready") == ("False", "NoHostFits") for vm in vms) == 2


async def test_a_host_in_maintenance_gets_no_new_guest_and_keeps_its_own(cloud: SimulatedCloud) -> None:
    await cloud.vm("before")
    (vm,) = await cloud.ready("before")
    first = cloud.hosts[vm["status"]["placement"]["host"]]
    await cloud.patch(world.HOSTS, first.name, {"maintenance": True})
    names = [f"vm-{number}" for number in range(4)]
    for name in names:
        await cloud.vm(name)
    vms = await cloud.ready("before", *names)
    assert [vm["status"]["placement"]["host"] == first.name for vm in vms] == [True, False, False, False, False]


async def test_the_instance_wins_over_a_record_that_was_wiped_or_written_by_hand(cloud: SimulatedCloud) -> None:
    await cloud.vm("web")
    (vm,) = await cloud.ready("web")
    placement = vm["status"]["placement"]
    other = next(name for name in cloud.hosts if name != placement["host"])
    wrong = {"host": other, "epoch": 1, "addresses": [{"interface": "eth0", "address": "10.99.0.77"}]}
    for record in (None, wrong):
        await cloud.admin.patch(world.VMS, vm, {"status": {"placement": record}}, subresource="status")
        (vm,) = await until(lambda: cloud.ready("web"), lambda found: found[0]["status"].get("placement") == placement)
        assert len(await cloud.all(world.INSTANCES)) == 1
        assert [one["spec"]["address"] for one in await cloud.all(world.ALLOCATIONS)] == ["10.99.0.1"]


async def test_an_address_that_a_stranger_holds_is_passed_over(cloud: SimulatedCloud) -> None:
    await cloud.stop_controller()
    stranger = await cloud.vm("stranger", classRef={"name": cloud.named("no-such")})
    owner = {"namespace": cloud.namespace, "name": "stranger", "uid": stranger["metadata"]["uid"]}
    for address in ("10.99.0.1", "10.99.0.2"):
        await _allocate(cloud, address, owner)
    await cloud.vm("stranger-to-all")
    # A record of an address that somebody else got first: what a lost race leaves.
    vm = await cloud.get(world.VMS, "stranger-to-all")
    assert vm is not None
    record = {"host": next(iter(cloud.hosts)), "epoch": 1, "addresses": [{"interface": "eth0", "address": "10.99.0.2"}]}
    await cloud.admin.patch(world.VMS, vm, {"status": {"placement": record}}, subresource="status")
    await cloud.start_controller()
    (vm,) = await cloud.ready("stranger-to-all")
    assert vm["status"]["placement"]["addresses"] == [{"interface": "eth0", "address": "10.99.0.3"}]
    await cloud.delete("stranger")
    await cloud.delete("stranger-to-all")
    await cloud.nothing_is_left()


async def _allocate(cloud: SimulatedCloud, address: str, owner: dict[str, str]) -> None:
    spec = {
        "address": address,
        "poolRef": {"name": cloud.named("pool")},
        "networkRef": {"kind": "ClusterNetwork", "name": cloud.named("net")},
        "owner": owner,
        "interface": "eth0",
    }
    name = allocate.ledger_name(address)
    await cloud.admin.create(world.ALLOCATIONS, {"metadata": {"name": name}, "spec": spec})


async def test_spec_changes_reach_the_guest_or_say_that_they_need_a_restart(cloud: SimulatedCloud) -> None:
    await cloud.vm("web")
    (vm,) = await cloud.ready("web")
    await cloud.patch(world.VMS, "web", {"runStrategy": "Halted"})
    (vm,) = await cloud.ready("web", reason="Halted")
    assert vm["status"]["printableStatus"] == "Halted"
    assert not any(metal.running for metal in cloud.hosts.values())
    await cloud.patch(world.VMS, "web", {"runStrategy": "Always"})
    (vm,) = await cloud.ready("web")
    # The class grows: the guest runs on, and is told to have an older size.
    await cloud.patch(world.CLASSES, cloud.named("small"), {"memory": "128Mi"})
    vm = await cloud.says("web", "RestartNeeded", kind="RestartRequired", status="True")
    assert said(vm, "Ready") == ("True", "Running")
    (instance,) = await cloud.all(world.INSTANCES)
    assert instance["spec"]["memory"] == 128 << 20
    await cloud.patch(world.VMS, "web", {"classRef": None, "cpu": 1, "memory": "64Mi"})
    await until(
        lambda: cloud.get(world.VMS, "web"),
        lambda found: found is not None and said(found, "RestartRequired") is None and said(found, "Ready") is not None,
    )


async def test_an_instance_or_an_address_that_is_deleted_by_hand_is_made_anew(cloud: SimulatedCloud) -> None:
    await cloud.vm("web")
    (vm,) = await cloud.ready("web")
    (allocation,) = await cloud.all(world.ALLOCATIONS)
    await cloud.admin.delete(world.ALLOCATIONS, allocation)
    await until(
        lambda: cloud.all(world.ALLOCATIONS),
        lambda found: len(found) == 1 and found[0]["metadata"]["uid"] != allocation["metadata"]["uid"],
    )
    (instance,) = await cloud.all(world.INSTANCES)
    await cloud.admin.delete(world.INSTANCES, instance)
    await until(
        lambda: cloud.all(world.INSTANCES),
        lambda found: len(found) == 1 and found[0]["metadata"]["uid"] != instance["metadata"]["uid"],
    )
    (again,) = await cloud.ready("web")
    assert again["status"]["placement"] == vm["status"]["placement"]


async def test_an_agent_that_falls_silent_is_told_and_its_guests_run_on(cloud: SimulatedCloud) -> None:
    await cloud.vm("web")
    (vm,) = await cloud.ready("web")
    metal = cloud.hosts[vm["status"]["placement"]["host"]]
    await cloud.stop_controller()
    await cloud.start_controller(silent_after=1.5)
    # Here the agent's lease is renewed every 10 s: a stand-in for a lively one renews it more often.
    async with cloud.lively(metal):
        await cloud.ready("web")
        await cloud.stop_agent(metal)
    vm = await cloud.says("web", "AgentSilent", status="Unknown")
    assert said(vm, "AgentConnected") == ("Unknown", "AgentSilent")
    assert vm["status"]["printableStatus"] == "Unknown"
    assert metal.running == {vm["metadata"]["uid"]}
    await cloud.host_is(metal, "Unknown")
    async with cloud.lively(metal):
        await cloud.ready("web")
        await cloud.host_is(metal, "True")


async def test_a_lease_in_another_hosts_namespace_speaks_for_nobody(cloud: SimulatedCloud) -> None:
    first, second = cloud.hosts.values()
    await cloud.stop_controller()
    await cloud.stop_agent(second)
    await cloud.start_controller(silent_after=0.5)
    for metal in (first, second):
        await cloud.host_is(metal, "Unknown")
    async with cloud.lively(first, says=second.name):
        await asyncio.sleep(0.8)
        await cloud.host_is(second, "Unknown")


async def test_the_namespace_of_a_host_has_its_agents_rights_and_no_others(cloud: SimulatedCloud) -> None:
    name = next(iter(cloud.hosts))
    binding = await cloud.admin.get(kube.ROLE_BINDINGS, f"corral-host-{name}", controller_host.AGENT_ROLE)
    assert binding is not None
    assert binding["roleRef"]["name"] == controller_host.AGENT_ROLE
    assert [subject["name"] for subject in binding["subjects"]] == [f"corral:agent:{name}"]
