"""BGP from a Host to its routing daemons and back, with the real processes and daemons in memory."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from corral import kube
from corral.controller import world

from .metal import Metal
from .simulated_cloud import SimulatedCloud, message, said, until

pytestmark = pytest.mark.api

BGP: dict[str, Any] = {
    "asn": 4200000011,
    "addresses": ["100.87.0.11"],
    "neighbors": [{"interface": "up1"}, {"interface": "up2"}],
}
ROUTER = ("router bgp 4200000011",)


async def says(cloud: SimulatedCloud, metal: Metal, reason: str) -> kube.Object:
    """The Host, once its FabricReady has this reason."""
    host = await until(
        lambda: cloud.admin.get(world.HOSTS, None, metal.name),
        lambda found: found is not None and (said(found, "FabricReady") or ("", ""))[1] == reason,
    )
    assert host is not None
    return host


async def test_a_host_speaks_says_how_it_stands_and_falls_silent(lent_cloud: SimulatedCloud) -> None:
    cloud = lent_cloud
    metal = await cloud.add_host("router")
    metal.bgp.answers = lambda name: name == "up1"
    metal.bgp.kernel = lambda: ("10.77.0.0/26",)
    assert metal.bgp.running == {"zebra": {}, "bgpd": {}}
    await cloud.patch(world.HOSTS, metal.name, {"bgp": BGP})
    host = await says(cloud, metal, "NeighborsMissing")
    assert said(host, "Ready") == ("True", "Usable")
    assert "1 of 2 BGP sessions are established, not with up2. Next: " in message(host, "FabricReady")

    metal.bgp.answers = lambda _: True
    host = await says(cloud, metal, "FabricConnected")
    assert host["status"]["bgp"]["established"] == "2/2"
    assert [(one["neighbor"], one["state"]) for one in host["status"]["bgp"]["sessions"]] == [
        ("up1", "Established"),
        ("up2", "Established"),
    ]
    assert ROUTER in metal.bgp.running["bgpd"]

    # Nothing changes: nobody writes, neither now nor at an agent's restart.
    await asyncio.sleep(0.5)
    before = await versions(cloud, metal)
    await cloud.stop_agent(metal)
    cloud.start_agent(metal, look_every=0.3)
    await asyncio.sleep(1.5)
    assert await versions(cloud, metal) == before

    daemons = metal.bgp.running
    metal.bgp.running = {}
    host = await says(cloud, metal, "FrrUnavailable")
    assert said(host, "Ready")[0] == "False"
    assert "systemctl restart frr" in message(host, "Ready")
    metal.bgp.running = daemons
    await says(cloud, metal, "FabricConnected")

    await cloud.patch(world.HOSTS, metal.name, {"bgp": None})
    await until(
        lambda: cloud.admin.get(world.HOSTS, None, metal.name),
        lambda found: found is not None and "bgp" not in found["status"] and said(found, "Ready")[0] == "True",
    )
    await until(lambda: _running(metal), lambda found: found == {"zebra": {}, "bgpd": {}})


async def test_what_another_host_has_is_not_given_twice(lent_cloud: SimulatedCloud) -> None:
    cloud = lent_cloud
    first, second = await cloud.add_host("first"), await cloud.add_host("second")
    await cloud.patch(world.HOSTS, second.name, {"bgp": BGP})
    await says(cloud, second, "FabricConnected")
    await cloud.patch(world.HOSTS, first.name, {"bgp": BGP})
    host = await says(cloud, first, "BgpTaken")
    assert f"spec.bgp.asn 4200000011 is Host {second.name}'s already" in message(host, "FabricReady")
    assert first.bgp.running == {"zebra": {}, "bgpd": {}}
    await cloud.patch(world.HOSTS, second.name, {"bgp": BGP | {"asn": 4200000012, "addresses": ["100.87.0.12"]}})
    await says(cloud, first, "FabricConnected")
    await says(cloud, second, "FabricConnected")


async def versions(cloud: SimulatedCloud, metal: Metal) -> list[str]:
    """Every write to the Host or its HostState makes another one."""
    host = await cloud.admin.get(world.HOSTS, None, metal.name)
    state = await cloud.admin.get(world.HOST_STATES, f"corral-host-{metal.name}", metal.name)
    return [found["metadata"]["resourceVersion"] for found in (host, state) if found is not None]


async def _running(metal: Metal) -> dict[str, Any]:
    return metal.bgp.running
