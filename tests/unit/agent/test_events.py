from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable

import pytest

from corral.agent import desired, events
from corral.agent.instance import INSTANCES
from corral_drivers import errors
from corral_drivers.firewall import port as firewall_port
from corral_drivers.link import model as link
from corral_drivers.link import simulated as simulated_link
from corral_drivers.storage import model as storage

from .simulated_host import CLOUD, HOST, OWNER, Agent, Host, spec
from .test_sync import Woken, begun

TAP = desired.tap_name(OWNER, "eth0")
FOREIGN = simulated_link.Interface(99, f"corral:another:{HOST}:{OWNER}", 1500, link.HOST_MAC)

FIREWALL = firewall_port.Settings(CLOUD, HOST)

Disturb = Callable[[Host], object]

DISTURBANCES: dict[str, Disturb] = {
    "guest": lambda host: host.machine.pause(OWNER),
    "tap": lambda host: host.links.drop(TAP),
    "routes": lambda host: host.routing.lose(TAP),
    "seed": lambda host: host.seeds.put(OWNER, None),
    "rules": lambda host: host.firewall.flush(FIREWALL.table),
    "answers": lambda host: host.dhcp.put(OWNER, None),
    "disk": lambda host: host.pool.rename(OWNER, "root"),
}

OTHERS: dict[str, Disturb] = {
    "tap": lambda host: host.links.put("foreign", FOREIGN),
    "routes": lambda host: host.routing.listeners.tell("foreign"),
    "rules": lambda host: host.firewall.listeners.tell("corral.another.host"),
}


async def woken_by(disturb: Disturb, *, without: str = "") -> list[str]:
    """Whom it wakes that something changes on a host; `without` is a room that can't be watched."""
    host, (api, _, woken, sync) = Host(), begun()
    agent = Agent(host)
    await agent.converge(spec(), passes=2)
    sync.deliver(INSTANCES, None, api.put("a", "u1"))
    sync.deliver(INSTANCES, None, api.put("b", "u2", owner={"namespace": "x", "name": "y", "uid": "other"}))
    made = agent.made
    if without:
        made = dataclasses.replace(made, **{without: Deaf()})
    with await events.listen(made, sync, lambda: sync.touched(OWNER)):
        found = await _woken(woken, lambda: disturb(host))
    await made.hypervisor.close()
    assert await _woken(woken, lambda: DISTURBANCES["seed"](host)) == [], "nothing is heard after the end"
    return found


async def _woken(woken: Woken, disturb: Callable[[], object]) -> list[str]:
    woken.taken()
    disturb()
    await asyncio.sleep(0)
    return woken.taken()


class Deaf:
    """A room of a kernel that gives no watches."""

    async def watch(self, changed: Callable[[str], None], missed: Callable[[], None]) -> Callable[[], None]:
        raise errors.Unavailable(storage.Cause.FAILED, "can't watch: too many open files")


@pytest.mark.parametrize("what", DISTURBANCES)
async def test_what_is_touched_on_the_host_wakes_its_owner(what: str) -> None:
    assert await woken_by(DISTURBANCES[what]) == ["a", "h1"]


@pytest.mark.parametrize("what", OTHERS)
async def test_what_is_not_ours_wakes_no_guest(what: str) -> None:
    assert await woken_by(OTHERS[what]) == []


async def test_a_room_that_can_not_be_watched_leaves_the_others_heard() -> None:
    assert await woken_by(DISTURBANCES["tap"], without="storage") == ["a", "h1"]
    assert await woken_by(DISTURBANCES["disk"], without="storage") == []


async def test_a_tap_is_known_as_long_as_its_instance_has_it() -> None:
    api, known, woken, sync = begun()
    sync.deliver(INSTANCES, None, api.put("a", "u1"))
    second = desired.tap_name(OWNER, "eth1")
    woken.taken()
    sync.touched_over(second)
    assert woken.taken() == ["a", "h1"]
    sync.deliver(INSTANCES, None, api.put("a", "u1", interfaces=spec_interfaces()[:1]))
    woken.taken()
    sync.touched_over(second)
    assert woken.taken() == []
    sync.touched_over(TAP)
    assert woken.taken() == ["a", "h1"]
    known.settle(INSTANCES, next(key for key, _ in known.all(INSTANCES.plural)), None)
    sync.touched_over(TAP)
    assert woken.taken() == []


def spec_interfaces() -> list[object]:
    return [nic.model_dump(by_alias=True, mode="json") for nic in spec().interfaces]
