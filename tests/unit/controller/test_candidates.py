from __future__ import annotations

import datetime
from typing import Any

import pytest

from corral import kube, place
from corral.api import objects
from corral.api.v1alpha1 import host, placement, virtualmachine
from corral.conclude import conditions
from corral.controller import candidates, heartbeats, ledger, process, world
from corral.resolve import requirements

from .things import an_instance, made

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
READY = [
    {
        "type": "HypervisorReady",
        "status": "True",
        "reason": "HypervisorAnswers",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
        "message": "",
    }
]
MIB = 1 << 20


def a_state(name: str, memory: str = "4Gi", *, accelerator: str = "kvm", **status: Any) -> kube.Object:
    said = {
        "observedGeneration": 1,
        "capacity": {"cpu": 4, "memory": memory},
        "facts": {"accelerator": accelerator},
        "conditions": READY,
    }
    return made(world.HOST_STATES, name, namespace=f"corral-host-{name}", status=said | status)


def a_host(name: str, *, labels: dict[str, str] | None = None, **spec: Any) -> kube.Object:
    return made(world.HOSTS, name, metadata={"labels": labels or {}}, spec={"reserved": {"memory": "0"}} | spec)


def beat(here: world.World, *names: str, at: float) -> None:
    leases = [
        {
            "metadata": {
                "labels": {heartbeats.LABEL: name},
                "namespace": f"corral-host-{name}",
                "name": heartbeats.NAME,
                "resourceVersion": f"{at}",
            },
            "spec": {"renewTime": "2026-01-01T00:00:00.000000Z"},
        }
        for name in names
    ]
    here.heartbeats.take(leases, now=at, wall=NOW)


def cloud(*names: str) -> world.World:
    api: Any = None  # nothing here asks it
    here = process.make_world(api)
    for name in names:
        here.store.put(world.HOSTS, a_host(name))
        here.store.put(world.HOST_STATES, a_state(name))
    beat(here, *names, at=1.0)
    return here


def seen(here: world.World) -> dict[str, tuple[int, int, str | None]]:
    """Of each host its free thousandths of CPUs and MiB, and why it refuses."""
    return {one.name: (one.free_cpu, one.free_memory // MIB, one.refuses) for one in here.candidates.all()}


FREE = (4000, 4096, None)


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ((world.HOSTS, a_host("h1", maintenance=True)), "in maintenance"),
        ((world.HOSTS, a_host("h1", reserved={"memory": "plenty"})), "not understood"),
        ((world.HOST_STATES, a_state("h1", conditions=[])), "not ready"),
        ((world.HOST_STATES, a_state("h1", conditions=[READY[0] | {"status": "Unknown"}])), "not ready"),
    ],
)
def test_a_host_refuses(change: tuple[kube.Collection, kube.Object], cause: str) -> None:
    here = cloud("h1", "h2")
    assert seen(here) == {"h1": FREE, "h2": FREE}
    where, obj = change
    # Each of these objects is made anew: the store takes nothing that is older than what it has.
    obj = made(
        where, "h1", namespace=obj["metadata"].get("namespace", ""), spec=obj["spec"], status=obj.get("status", {})
    )
    assert here.store.put(where, obj)
    assert seen(here) == {"h1": (0, 0, cause), "h2": FREE}


def test_a_host_whose_agent_is_silent_or_never_spoke_is_not_ready() -> None:
    here = cloud("h1", "h2")
    here.store.put(world.HOSTS, a_host("h3"))
    assert seen(here)["h3"] == (0, 0, "not ready")
    beat(here, "h2", at=100.0)
    assert seen(here) == {"h1": (0, 0, "not ready"), "h2": FREE, "h3": (0, 0, "not ready")}
    beat(here, "h1", at=101.0)
    assert seen(here)["h1"] == FREE


def test_a_host_that_is_gone_is_no_candidate() -> None:
    here = cloud("h1", "h2")
    assert len(here.candidates.all()) == 2
    here.store.settle(world.HOSTS, kube.Key("hosts", "", "h1"), None)
    assert seen(here) == {"h2": FREE}


def test_labels_are_the_hosts_own_and_its_name() -> None:
    here = cloud("h1")
    here.store.put(world.HOSTS, a_host("h1", labels={placement.ZONE: "a", placement.HOST: "liar"}))
    (one,) = here.candidates.all()
    assert one.labels == {placement.ZONE: "a", placement.HOST: "h1"}


@pytest.mark.parametrize(
    ("accelerator", "left"), [("kvm", 4096 - 512 - 48 - 1 - 1), ("tcg", 4096 - 512 - 48 - 1 - 1 - 128)]
)
def test_what_guests_take_is_not_free_and_is_told(accelerator: str, left: int) -> None:
    here = cloud("h1", "h2")
    here.store.put(world.HOST_STATES, a_state("h1", accelerator=accelerator))
    assert here.candidates.untold() == []
    assert seen(here) == {"h1": FREE, "h2": FREE}
    here.store.put(world.INSTANCES, an_instance("u1", memory=512 * MIB))
    assert seen(here) == {"h1": (3875, left, None), "h2": FREE}
    assert here.candidates.untold() == ["h1"]
    assert here.candidates.untold() == []
    taken = here.candidates.allocated("h1", accelerator)
    assert taken == host.Allocated(guests=1, virtual_cpus=1, cpu=1, memory=f"{4096 - left}Mi")
    assert here.candidates.allocated("h2", accelerator) == host.Allocated()


def test_who_waits_for_room_hears_of_every_way_in_which_there_is_more() -> None:
    here = cloud("h1")
    large = an_instance("u1", memory=512 * MIB, own_uid="i1")
    here.store.put(world.INSTANCES, large)
    assert not here.candidates.has_more_room()
    here.store.put(world.INSTANCES, an_instance("u1", memory=256 * MIB, own_uid="i1"))
    assert here.candidates.has_more_room()
    assert not here.candidates.has_more_room()
    shared = an_instance("u1", memory=256 * MIB, own_uid="i1")
    shared["spec"]["overcommit"] = {"cpu": 16, "memoryPercent": 100}
    here.store.put(world.INSTANCES, shared)
    assert here.candidates.has_more_room()
    here.ledger.reserve("u2", 1, ledger.Charge("h1", candidates.cost(needs())), ())
    assert not here.candidates.has_more_room()
    here.ledger.release("u2")
    assert here.candidates.has_more_room()
    here.store.settle(world.INSTANCES, kube.key_of(world.INSTANCES, large), None)
    assert here.candidates.has_more_room()


def test_a_change_of_status_alone_tells_nothing() -> None:
    here = cloud("h1")
    here.store.put(world.INSTANCES, an_instance("u1", own_uid="i1"))
    here.candidates.untold()
    here.store.put(world.INSTANCES, an_instance("u1", own_uid="i1", status={"observedGeneration": 1}))
    assert here.candidates.untold() == []


def test_no_more_than_a_hundred_hosts_tell_their_numbers_at_once() -> None:
    here = cloud()
    names = [f"h{number:03}" for number in range(250)]
    for name in names:
        here.store.put(world.INSTANCES, an_instance(f"u-{name}", host=name))
    assert [here.candidates.untold() for _ in range(4)] == [names[:100], names[100:200], names[200:], []]


# What is said where there is no host.


def a_vm(**asked: Any) -> Any:
    metadata = {"namespace": "shop", "name": "web", "uid": "u1", "labels": {"app": "web"}}
    spec = {"cpu": 1, "memory": "64Mi", "imageRef": {"name": "debian"}, "placement": asked}
    return objects.parsed(
        {"metadata": metadata, "spec": spec}, virtualmachine.VirtualMachineSpec, virtualmachine.VirtualMachineStatus
    )


def needs(memory: int = 64) -> requirements.Requirements:
    return requirements.Requirements(1, memory * MIB, "pc", (), ())


def chosen(here: world.World, vm: Any, wanted: requirements.Requirements) -> str | conditions.Fact:
    return candidates.choose(here.candidates, here.census, vm, wanted)


def test_a_host_is_chosen_by_what_the_spec_asks() -> None:
    here = cloud("h1", "h2")
    assert chosen(here, a_vm(), needs()) == "h1"
    assert chosen(here, a_vm(hostSelector={"matchLabels": {placement.HOST: "h2"}}), needs()) == "h2"


def test_too_little_memory_says_of_which_hosts_and_how_much_it_is_about() -> None:
    here = cloud("h1", "h2", "h3")
    here.store.put(world.HOSTS, a_host("h3", maintenance=True))
    here.store.put(world.HOST_STATES, a_state("h2", accelerator="tcg"))
    fact = chosen(here, a_vm(), needs(8192))
    assert isinstance(fact, conditions.Fact)
    assert (fact.type, fact.status, fact.reason) == ("Scheduled", "False", "NoHostFits")
    assert fact.detail == (
        "0/3 hosts: 2 too little memory, 1 in maintenance. h1, h2: too little memory; h3: in maintenance. "
        "With its hypervisor it takes 8257 or 8513 MiB"
    )


def test_what_the_tenant_asks_for_is_the_tenants_to_change() -> None:
    here = cloud("h1", "h2")
    fact = chosen(here, a_vm(hostSelector={"matchLabels": {"disk": "ssd"}}), needs())
    assert isinstance(fact, conditions.Fact)
    assert (fact.reason, fact.detail) == (
        "NoHostMatches",
        "0/2 hosts: 2 outside the hostSelector. h1, h2: outside the hostSelector",
    )
    here.store.put(world.HOSTS, a_host("h2", maintenance=True))
    mixed = chosen(here, a_vm(hostSelector={"matchLabels": {"disk": "ssd"}}), needs())
    assert isinstance(mixed, conditions.Fact)
    assert mixed.reason == "NoHostFits"


def test_a_thousand_hosts_leave_room_for_the_next_command() -> None:
    here = cloud(*(f"host-with-a-long-name-{number:04}" for number in range(1000)))
    fact = chosen(here, a_vm(), needs(8192))
    assert isinstance(fact, conditions.Fact)
    names = {"namespace": "n" * 63, "name": "v" * 63}
    (said,) = conditions.written((fact,), (), generation=1, now=NOW, names=names)
    assert len(said.message) <= conditions.LONGEST_MESSAGE
    assert said.message.startswith("0/1000 hosts: 1000 too little memory. host-with-a-long-name-0000, ")
    assert "more: too little memory. With its hypervisor it takes 8257 MiB. Next: " in said.message


def test_causes_are_told_apart() -> None:
    assert {cause for cause in place.Cause if cause.is_asked_for} == {
        place.Cause.SELECTOR,
        place.Cause.NO_ZONE,
        place.Cause.AFFINITY,
        place.Cause.ANTI_AFFINITY,
        place.Cause.KEPT_AWAY,
        place.Cause.SPREAD,
    }
