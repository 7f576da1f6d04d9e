"""Where a guest goes, and what keeps two from having the same memory or address, or one from having two places."""

from __future__ import annotations

import asyncio

import pytest

from corral import allocate, kube
from corral.api.v1alpha1 import placement
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
    # Two hosts of 4 GiB: ten guests of 280 MiB each, that take 400 with their hypervisors, and no eleventh.
    names = [f"vm-{number}" for number in range(22)]
    await asyncio.gather(*(cloud.vm(name, classRef=None, cpu=1, memory="280Mi") for name in names))
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


# What a VirtualMachine asks for.

WEB, DB = {"app": "web"}, {"app": "db"}


def near(labels: dict[str, str], topology_key: str = placement.HOST) -> dict[str, list[dict[str, object]]]:
    """What affinity or antiAffinity requires."""
    return {"required": [{"labelSelector": {"matchLabels": labels}, "topologyKey": topology_key}]}


def where(vm: kube.Object) -> str:
    host: str = vm["status"]["placement"]["host"]
    return host


async def test_a_host_selector_waits_for_a_label(cloud: SimulatedCloud) -> None:
    fast = {"hostSelector": {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd", "nvme"]}]}}
    await cloud.vm("web", placement=fast)
    vm = await cloud.says("web", "NoHostMatches")
    first, second = cloud.hosts
    assert message(vm).startswith(
        f"0/2 hosts: 2 outside the hostSelector. {first}, {second}: outside the hostSelector. Next: kubectl get vm"
    )
    await cloud.label(world.HOSTS, second, disk="nvme")
    (vm,) = await cloud.ready("web")
    assert where(vm) == second
    # A guest keeps its host, whatever its host and its VirtualMachine say by then.
    await cloud.label(world.HOSTS, second, disk=None)
    await cloud.patch(world.VMS, "web", {"placement": {"hostSelector": {"matchLabels": {placement.HOST: first}}}})
    (vm,) = await cloud.ready("web")
    assert where(vm) == second


async def test_a_guest_that_is_halted_keeps_its_host(cloud: SimulatedCloud) -> None:
    await cloud.vm("web")
    (vm,) = await cloud.ready("web")
    await cloud.patch(world.VMS, "web", {"runStrategy": "Halted"})
    await cloud.ready("web", reason="Halted")
    await cloud.patch(world.HOSTS, where(vm), {"maintenance": True})
    await cloud.patch(world.VMS, "web", {"placement": {"hostSelector": {"matchLabels": {"disk": "ssd"}}}})
    await cloud.patch(world.VMS, "web", {"runStrategy": "Always"})
    (again,) = await cloud.ready("web")
    assert again["status"]["placement"] == vm["status"]["placement"]


async def test_guests_that_want_to_be_apart_are_never_together_also_where_they_come_at_once(
    cloud: SimulatedCloud,
) -> None:
    names = [f"vm-{number}" for number in range(8)]
    await asyncio.gather(*(cloud.vm(name, labels=WEB, placement={"antiAffinity": near(WEB)}) for name in names))

    async def placed() -> list[str]:
        return [where(vm) for vm in await cloud.all(world.VMS) if said(vm, "Ready") == ("True", "Running")]

    await until(placed, lambda hosts: len(hosts) == 2)
    await asyncio.sleep(0.5)
    assert sorted(await placed()) == sorted(cloud.hosts)
    waiting = [vm for vm in await cloud.all(world.VMS) if said(vm, "Ready") == ("False", "NoHostMatches")]
    assert len(waiting) == 6
    assert message(waiting[0]).startswith("0/2 hosts: 2 near those of the antiAffinity.")
    # The place of one that goes is another one's.
    gone = next(vm for vm in await cloud.all(world.VMS) if said(vm, "Ready") == ("True", "Running"))
    await cloud.delete(gone["metadata"]["name"])
    await until(placed, lambda hosts: sorted(hosts) == sorted(cloud.hosts))
    # So it is of one that is another by its labels.
    other = next(vm for vm in await cloud.all(world.VMS) if said(vm, "Ready") == ("True", "Running"))
    await cloud.admin.patch(world.VMS, other, {"metadata": {"labels": {"app": "other"}}, "spec": {"placement": None}})
    await until(placed, lambda hosts: len(hosts) == 3)


async def test_who_wants_to_be_apart_is_left_alone_by_those_that_ask_for_nothing(cloud: SimulatedCloud) -> None:
    for name in ("keeper-1", "keeper-2"):
        await cloud.vm(
            name, labels=DB, placement={"antiAffinity": {"required": [*near(WEB)["required"], *near(DB)["required"]]}}
        )
    await cloud.ready("keeper-1", "keeper-2")
    await cloud.vm("web", labels=WEB)
    vm = await cloud.says("web", "NoHostMatches")
    assert message(vm).startswith("0/2 hosts: 2 near one whose antiAffinity keeps this away.")
    await cloud.vm("another")
    await cloud.ready("another")
    first = await cloud.get(world.VMS, "keeper-1")
    assert first is not None
    await cloud.patch(world.VMS, "keeper-1", {"placement": None})
    (vm,) = await cloud.ready("web")
    assert where(vm) == where(first)


async def test_a_guest_waits_for_the_one_that_it_wants_to_be_near_to(cloud: SimulatedCloud) -> None:
    _, second = cloud.hosts
    await cloud.vm("cache", placement={"affinity": near(DB)})
    vm = await cloud.says("cache", "NoHostMatches")
    assert message(vm).startswith("0/2 hosts: 2 not near those of the affinity.")
    await cloud.vm("db", labels=DB, placement={"hostSelector": {"matchLabels": {placement.HOST: second}}})
    _, vm = await cloud.ready("db", "cache")
    assert where(vm) == second
    # Another namespace's, or one of other labels, is nobody to be near to.
    await cloud.vm("lonely", placement={"affinity": near(WEB)})
    await cloud.says("lonely", "NoHostMatches")
    await cloud.label(world.VMS, "db", app="web")
    (vm,) = await cloud.ready("lonely")
    assert where(vm) == second


async def test_guests_are_spread_over_zones_also_where_they_come_at_once(cloud: SimulatedCloud) -> None:
    first, second = cloud.hosts
    third = (await cloud.add_host("c")).name
    constraint = {"topologyKey": placement.ZONE, "labelSelector": {"matchLabels": WEB}}
    spread = {"topologySpreadConstraints": [constraint]}
    await cloud.vm("early", labels=WEB, placement=spread)
    vm = await cloud.says("early", "NoHostMatches")
    assert message(vm).startswith("0/3 hosts: 3 without a zone.")
    await cloud.label(world.HOSTS, first, zone="north")
    await cloud.label(world.HOSTS, second, zone="north")
    await cloud.label(world.HOSTS, third, zone="south")
    names = [f"vm-{number}" for number in range(9)]
    await asyncio.gather(*(cloud.vm(name, labels=WEB, placement=spread) for name in names))
    vms = await cloud.ready("early", *names)
    assert sorted("south" if where(vm) == third else "north" for vm in vms) == ["north"] * 5 + ["south"] * 5
    # Where one zone takes nobody, the other has one more and then no more; who does not insist goes there.
    await cloud.patch(world.HOSTS, third, {"maintenance": True})
    await cloud.vm("more", labels=WEB, placement=spread)
    await cloud.ready("more")
    await cloud.vm("most", labels=WEB, placement=spread)
    vm = await cloud.says("most", "NoHostFits")
    assert message(vm).startswith("0/3 hosts: 2 beyond maxSkew, 1 in maintenance.")
    anyway = {"topologySpreadConstraints": [constraint | {"whenUnsatisfiable": "ScheduleAnyway"}]}
    await cloud.vm("anyway", labels=WEB, placement=anyway)
    await cloud.ready("anyway")
    await cloud.patch(world.HOSTS, third, {"maintenance": False})
    (vm,) = await cloud.ready("most")
    assert where(vm) == third


async def test_cpus_are_shared_as_the_class_says_and_guests_wait_for_them(cloud: SimulatedCloud) -> None:
    for name in cloud.hosts:
        await cloud.patch(world.HOSTS, name, {"maintenance": True})
    metal = await cloud.add_host("c", cpus=2)
    await cloud.offer(world.CLASSES, "wide", {"cpu": 2, "memory": "64Mi", "overcommit": {"cpu": 3}})
    await cloud.offer(world.CLASSES, "shared", {"cpu": 2, "memory": "64Mi"})
    for name, size in (("a", "wide"), ("b", "shared"), ("c", "shared"), ("d", "shared")):
        await cloud.vm(name, classRef={"name": cloud.named(size)})
    # Two thirds of a CPU and three quarters leave little more than half of one.
    await cloud.ready("a", "b", "c", "d")
    await cloud.vm("e", classRef={"name": cloud.named("wide")})
    vm = await cloud.says("e", "NoHostFits")
    assert message(vm).startswith("0/3 hosts: 2 in maintenance, 1 too little CPU.")
    # Those of the other class give way.
    await cloud.patch(world.CLASSES, cloud.named("shared"), {"overcommit": {"cpu": 256}})
    (vm,) = await cloud.ready("e")
    assert where(vm) == metal.name


async def test_a_host_tells_what_guests_take_of_it_also_after_a_restart(cloud: SimulatedCloud) -> None:
    await cloud.stop_controller()
    await cloud.start_controller(allocated_every=0.2)
    await cloud.vm("web")
    (vm,) = await cloud.ready("web")

    async def allocated() -> kube.Object:
        found = await cloud.get(world.HOSTS, where(vm))
        assert found is not None
        told: kube.Object = found["status"]["allocated"]
        return told

    # 64 MiB, 32 for translated code, 48 for QEMU, 1 a virtual CPU, and a byte of 512 for page tables.
    taken = {"guests": 1, "virtualCpus": 1, "cpu": 1, "memory": "148608Ki"}
    await until(allocated, lambda told: told == taken)
    await cloud.stop_controller()
    await cloud.start_controller(allocated_every=0.2)
    await asyncio.sleep(0.5)
    assert await allocated() == taken
    await cloud.delete("web")
    await until(allocated, lambda told: told == {"guests": 0, "virtualCpus": 0, "cpu": 0, "memory": "0"})
