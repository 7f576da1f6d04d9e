from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from corral.agent import fabric
from corral.api.v1alpha1 import host
from corral.conclude import fabric as conclude
from corral_drivers import errors
from corral_drivers.bgp import lines, simulated
from corral_drivers.bgp.model import Cause
from corral_drivers.bgp.plan import Configure
from corral_drivers.link import simulated as link
from corral_drivers.routing import model as routing
from corral_drivers.routing import plan as routing_plan

from . import simulated_host

BGP = {
    "asn": 4200000011,
    "addresses": ["100.87.0.11", "fd87::11"],
    "neighbors": [{"interface": "up1"}, {"interface": "up2"}],
}


def state(**changes: Any) -> host.HostStateSpec:
    spec = {
        "cloud": simulated_host.CLOUD,
        "host": simulated_host.HOST,
        "hypervisor": {"driver": "simulated"},
        "bgp": BGP,
        "blocks": ["10.77.0.0/26"],
        "pools": ["10.77.0.0/24"],
    }
    return host.HostStateSpec.model_validate(spec | changes)


class Agent:
    """One process's fabric on a simulated host, with what it told."""

    def __init__(self, machine: simulated_host.Host, spec: host.HostStateSpec) -> None:
        self.machine = machine
        self.reports: list[conclude.Found | None] = []
        calls = fabric.Calls(
            tell=lambda: self.reports.append(self.fabric.report),
            put_back=machine.put_back.append,
            clock=lambda: machine.now,
        )
        self.fabric = fabric.Fabric(machine.rooms(), spec, calls)

    def hears(self, spec: host.HostStateSpec) -> None:
        """The store takes in a HostState."""
        metadata = {"name": "h1", "namespace": "corral-host-h1", "uid": "u", "generation": 1}
        obj = {"metadata": metadata, "spec": spec.wire()}
        self.fabric.took(fabric.kube.Key("hoststates", "corral-host-h1", "h1"), None, obj)


@pytest.fixture
def machine() -> simulated_host.Host:
    made = simulated_host.Host()
    made.bgp = simulated.World(kernel=lambda: ("10.77.0.0/26", "10.77.0.200/32", "192.0.2.0/24"))
    return made


async def test_what_the_host_state_says_is_announced_and_told_once(machine: simulated_host.Host) -> None:
    agent = Agent(machine, state())
    assert agent.fabric.report == conclude.UNSEEN
    assert await agent.fabric.look() == fabric.SLOW
    (report,) = agent.reports
    assert report is not None
    assert conclude.fact(report, ()).reason == "FabricConnected"
    assert await agent.fabric.announces("10.77.0.5") is True
    assert await agent.fabric.announces("10.77.0.200") is True
    assert await agent.fabric.announces("10.77.0.201") is False
    assert await agent.fabric.announces("192.0.2.1") is False
    machine.bgp.kernel = lambda: ("10.77.0.0/26",)
    for _ in range(3):
        await agent.fabric.look()
    assert len(agent.reports) == 1
    assert machine.put_back == []


async def test_what_is_not_said_yet_is_not_announced_and_can_be_waited_for(machine: simulated_host.Host) -> None:
    agent = Agent(machine, state(blocks=[]))
    assert await agent.fabric.announces("10.77.0.5") is False
    await agent.fabric.heed()
    assert await agent.fabric.announces("10.77.0.5") is False
    agent.hears(state())
    await agent.fabric.heed()
    # FRR is not asked more often than that, however many guests wait.
    assert await agent.fabric.announces("10.77.0.5") is True
    agent.hears(state(blocks=["10.77.0.64/26"]))
    await agent.fabric.heed()
    machine.now += fabric.ASKED_EVERY
    assert await agent.fabric.announces("10.77.0.5") is False
    without = Agent(machine, state(bgp=None))
    assert await without.fabric.announces("10.77.0.5") is None


async def test_what_is_announced_and_is_not_here_is_told_at_the_second_look(machine: simulated_host.Host) -> None:
    agent = Agent(machine, state())
    await agent.fabric.look()
    await agent.fabric.look()
    # The kernel's route of 10.77.0.200 is not the routing room's.
    fact = conclude.fact(agent.reports[-1] or conclude.UNSEEN, ())
    assert (fact.status, fact.reason, "10.77.0.200/32" in fact.detail) == ("True", "AnnouncedTooMuch", True)
    machine.bgp.kernel = lambda: ("10.77.0.0/26",)
    await agent.fabric.look()
    assert conclude.fact(agent.reports[-1] or conclude.UNSEEN, ()).reason == "FabricConnected"
    assert len(agent.reports) == 3


async def test_a_guest_that_is_here_is_no_stray(machine: simulated_host.Host) -> None:
    machine.links.put("tap0", link.Interface(7, "", 1500, ""))
    made = machine.rooms()
    await made.routing.apply(routing_plan.SetRoute(routing.Route("10.77.0.200/32", "tap0")))
    agent = Agent(machine, state())
    for _ in range(3):
        await agent.fabric.look()
    assert len(agent.reports) == 1


async def test_it_looks_often_until_every_session_is_there(machine: simulated_host.Host) -> None:
    machine.bgp.answers = lambda name: name == "up1"
    agent = Agent(machine, state())
    assert await agent.fabric.look() == fabric.QUICK
    assert conclude.fact(agent.reports[-1] or conclude.UNSEEN, ()).reason == "NeighborsMissing"
    machine.bgp.answers = lambda _: True
    assert await agent.fabric.look() == fabric.SLOW
    assert len(agent.reports) == 2


async def test_numbers_of_prefixes_are_told_once_a_minute(machine: simulated_host.Host) -> None:
    routes = ["10.77.0.0/26"]
    machine.bgp.kernel = lambda: routes
    machine.links.put("tap0", link.Interface(7, "", 1500, ""))
    guests = machine.rooms().routing
    agent = Agent(machine, state())
    await agent.fabric.look()
    for number in range(70, 100):
        routes.append(f"10.77.0.{number}/32")
        await guests.apply(routing_plan.SetRoute(routing.Route(routes[-1], "tap0")))
        machine.now += 5
        await agent.fabric.look()
    assert len(agent.reports) == 3


async def test_a_change_of_blocks_is_taken_up_at_once(machine: simulated_host.Host) -> None:
    agent = Agent(machine, state())
    task = asyncio.create_task(agent.fabric.keep())
    agent.hears(state(blocks=["10.77.0.128/26"]))
    async with asyncio.timeout(5):
        while ("ip prefix-list corral-export-4 seq 20 permit 10.77.0.128/26",) not in machine.bgp.running["bgpd"]:
            await asyncio.sleep(0.01)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert machine.put_back == []


async def test_what_is_of_another_host_changes_nothing(machine: simulated_host.Host) -> None:
    agent = Agent(machine, state())
    await agent.fabric.look()
    agent.hears(state(host="other", blocks=[]))
    assert await agent.fabric.look() == fabric.SLOW
    assert ("ip prefix-list corral-export-4 seq 20 permit 10.77.0.0/26",) in machine.bgp.running["bgpd"]


async def test_what_somebody_changed_is_put_back_and_counted(machine: simulated_host.Host) -> None:
    agent = Agent(machine, state())
    await agent.fabric.look()
    machine.bgp.give("bgpd", ("ip prefix-list corral-export-4 seq 1 permit 0.0.0.0/0",))
    await agent.fabric.look()
    assert machine.put_back == ["bgp"]
    await Agent(machine, state(blocks=[])).fabric.look()
    assert machine.put_back == ["bgp"], "a new agent can't tell a hand from a reboot"


@pytest.mark.parametrize("daemon", ["zebra", "bgpd"])
async def test_without_frr_the_host_says_so_and_tries_again(machine: simulated_host.Host, daemon: str) -> None:
    gone = machine.bgp.running.pop(daemon)
    agent = Agent(machine, state())
    assert await agent.fabric.look() == fabric.RETRY
    fact = conclude.fact(agent.fabric.report or conclude.UNSEEN, ())
    assert (fact.status, fact.reason, daemon in fact.detail) == ("False", "FrrUnavailable", True)
    assert await agent.fabric.announces("10.77.0.5") is False
    machine.bgp.running[daemon] = gone
    assert await agent.fabric.look() == fabric.SLOW
    assert conclude.fact(agent.fabric.report or conclude.UNSEEN, ()).reason == "FabricConnected"


async def test_a_foreign_configuration_is_left_until_told(machine: simulated_host.Host) -> None:
    foreign = ("router bgp 64999",)
    machine.bgp.give("bgpd", foreign)
    agent = Agent(machine, state())
    assert await agent.fabric.look() == fabric.SLOW
    assert conclude.fact(agent.fabric.report or conclude.UNSEEN, ()).reason == "FrrForeign"
    assert machine.bgp.running == {"zebra": {}, "bgpd": {foreign: None}}
    agent.hears(state(bgp=BGP | {"takeOver": True}))
    await agent.fabric.look()
    assert foreign not in machine.bgp.running["bgpd"]
    assert machine.put_back == []


async def test_who_falls_silent_takes_back_what_is_ours_alone(machine: simulated_host.Host) -> None:
    agent = Agent(machine, state())
    await agent.fabric.look()
    agent.hears(state(bgp=None))
    assert await agent.fabric.look() == fabric.SLOW
    assert agent.reports[-1] is None
    assert machine.bgp.running == {"zebra": {}, "bgpd": {}}
    assert lines.read(machine.bgp.file or "") == ()
    machine.bgp.give("bgpd", ("router bgp 64999",))
    await agent.fabric.look()
    assert machine.bgp.running["bgpd"] == {("router bgp 64999",): None}


async def test_a_host_without_bgp_and_without_frr_is_well(machine: simulated_host.Host) -> None:
    machine.bgp.running.clear()
    agent = Agent(machine, state(bgp=None))
    assert await agent.fabric.look() == fabric.SLOW
    assert agent.reports == []
    assert await agent.fabric.announces("10.77.0.5") is None


async def test_a_step_that_fails_is_said_and_taken_again(machine: simulated_host.Host) -> None:
    failure = errors.Unavailable(Cause.FAILED, "bgpd refuses 'timers bgp 3 9'")
    machine.fail_at = lambda step: failure if isinstance(step, Configure) else None
    agent = Agent(machine, state())
    assert await agent.fabric.look() == fabric.RETRY
    assert conclude.fact(agent.fabric.report or conclude.UNSEEN, ()).reason == "FrrRefuses"
    machine.fail_at = simulated_host.nothing_fails
    assert await agent.fabric.look() == fabric.SLOW
