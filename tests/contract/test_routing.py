"""The contract of a host's routes and neighbours: the simulated tables and the kernel's keep the same promises."""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import json
import os
import pathlib
import select
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import pytest

from corral_drivers import errors, rtnetlink
from corral_drivers.link import plan as link_plan
from corral_drivers.link import port as link_port
from corral_drivers.link import tap
from corral_drivers.link.model import HOST_MAC, Tap
from corral_drivers.routing import kernel, messages, plan, port, simulated
from corral_drivers.routing.model import Blackhole, Cause, Neighbour, Route, Table

from .hearing import hearing
from .network import private_network

SETTINGS = port.Settings()
MAC = "02:00:00:00:00:05"


class Ground(Protocol):
    """Where a driver works, seen from outside: it has the interfaces `tap0` and `tap1`."""

    def driver(self, settings: port.Settings = SETTINGS) -> port.Routing:
        """A driver that remembers nothing."""
        ...

    def put_foreign(self, prefix: str) -> None:
        """A route that someone else made, over tap1."""
        ...

    def foreign(self) -> Any:
        """All that can be seen of the routes that are not ours."""
        ...

    def lose(self, interface: str) -> None:
        """The interface goes, and comes back as another of this name."""
        ...

    def cut(self, interface: str, address: str) -> None:
        """Someone removes the route and the neighbour of this address by hand."""
        ...

    def fill(self, prefix: str) -> None:
        """Someone removes the blackhole by hand."""
        ...


class Simulation:
    """The simulated world."""

    def __init__(self) -> None:
        self._indices = {"tap0": 2, "tap1": 3}
        self._world = simulated.World(index=self._indices.get)

    def driver(self, settings: port.Settings = SETTINGS) -> port.Routing:
        return simulated.Simulated(settings, world=self._world)

    def put_foreign(self, prefix: str) -> None:
        self._world.foreign.add((SETTINGS.table, prefix))

    def foreign(self) -> Any:
        return set(self._world.foreign)

    def lose(self, interface: str) -> None:
        self._indices[interface] = max(self._indices.values()) + 1

    def cut(self, interface: str, address: str) -> None:
        self._world.lose(interface)

    def fill(self, prefix: str) -> None:
        self._world.blackholes.discard((SETTINGS.table, prefix))
        self._world.listeners.tell("")


class PrivateNetwork:
    """A network namespace of its own, in which the whole process is for a while; `ip` is the independent witness."""

    def __init__(self) -> None:
        for interface in ("tap0", "tap1"):
            self._make(interface)

    def driver(self, settings: port.Settings = SETTINGS) -> port.Routing:
        return kernel.Kernel(settings)

    def put_foreign(self, prefix: str) -> None:
        metric = ["metric", "1"] if ":" in prefix else []
        ip("route", "add", prefix, "dev", "tap1", "proto", "static", *metric)

    def foreign(self) -> Any:
        shown = [json.loads(ip("-json", family, "route", "show")) for family in ("-4", "-6")]
        return [route for routes in shown for route in routes if route.get("protocol") != "199"]

    def lose(self, interface: str) -> None:
        ip("link", "delete", interface)
        self._make(interface)

    def cut(self, interface: str, address: str) -> None:
        ip("neighbour", "delete", address, "dev", interface)
        ip("route", "delete", address, "dev", interface)

    def fill(self, prefix: str) -> None:
        ip("route", "delete", "blackhole", prefix)

    def _make(self, interface: str) -> None:
        ip("tuntap", "add", "dev", interface, "mode", "tap")
        ip("link", "set", "dev", interface, "addrgenmode", "none", "up")


def ip(*words: str) -> str:
    """iproute2's answer."""
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


@pytest.fixture(params=["simulated", pytest.param("kernel", marks=pytest.mark.lab)])
def ground(request: pytest.FixtureRequest) -> Iterator[Ground]:
    if request.param == "simulated":
        yield Simulation()
        return
    with private_network():
        yield PrivateNetwork()


@pytest.fixture
def network() -> Iterator[None]:
    with private_network():
        yield


@pytest.fixture(params=["0", "1"])
def filtered_network(request: pytest.FixtureRequest) -> Iterator[None]:
    """Without and with the strict reverse path filter of some distributions."""
    with private_network():
        pathlib.Path("/proc/sys/net/ipv4/conf/all/rp_filter").write_text(request.param)
        yield


def way(address: str, interface: str) -> Table:
    """What one address of a guest needs."""
    length = ipaddress.ip_address(address).max_prefixlen
    return Table((Route(f"{address}/{length}", interface),), (Neighbour(address, MAC, interface),))


async def converge(tables: port.Routing, desired: Table, *interfaces: str) -> plan.Plan:
    """Observe, plan, apply."""
    steps = plan.plan(desired, await tables.observe(interfaces))
    for step in steps.steps:
        await tables.apply(step)
    return steps


@pytest.fixture(params=["10.77.0.5", "fd00:77::5"])
def address(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_what_is_applied_is_observed_and_then_nothing_is_left_to_do(ground: Ground, address: str) -> None:
    tables, desired = ground.driver(), way(address, "tap0")
    await converge(tables, desired, "tap0")
    assert await tables.observe(["tap0"]) == await tables.observe() == desired
    assert not await converge(tables, desired, "tap0")


async def test_every_step_may_be_taken_twice(ground: Ground, address: str) -> None:
    tables, desired = ground.driver(), way(address, "tap0")
    for step in 2 * plan.plan(desired, Table()).steps:
        await tables.apply(step)
    assert await tables.observe() == desired
    for step in 2 * plan.plan(Table(), desired).steps:
        await tables.apply(step)
    assert await tables.observe() == Table()


async def test_a_prefix_moves_to_another_interface(ground: Ground, address: str) -> None:
    tables = ground.driver()
    await converge(tables, way(address, "tap0"), "tap0")
    await converge(tables, way(address, "tap1"), "tap0", "tap1")
    assert await tables.observe() == way(address, "tap1")
    assert await tables.observe(["tap0"]) == Table()


async def test_a_late_removal_over_the_old_interface_leaves_the_new_route(ground: Ground, address: str) -> None:
    tables = ground.driver()
    old, new = way(address, "tap0").routes[0], way(address, "tap1").routes[0]
    for step in (plan.SetRoute(old), plan.SetRoute(new), plan.RemoveRoute(old)):
        await tables.apply(step)
    assert (await tables.observe()).routes == (new,)


async def test_another_mac_replaces_the_neighbour(ground: Ground, address: str) -> None:
    tables, other = ground.driver(), Neighbour(address, "02:00:00:00:00:06", "tap0")
    await converge(tables, way(address, "tap0"), "tap0")
    await tables.apply(plan.SetNeighbour(other))
    assert (await tables.observe(["tap0"])).neighbours == (other,)


async def test_a_watch_tells_over_which_interface_and_of_no_foreign_route(ground: Ground, address: str) -> None:
    tables = ground.driver()
    await converge(tables, way(address, "tap0"), "tap0")
    async with hearing(tables) as heard:
        ground.put_foreign("10.99.0.0/24")

        async def cut() -> None:
            ground.cut("tap0", address)

        await heard.only("tap0", cut)
        heard.clear()
        await converge(tables, way(address, "tap0"), "tap0")
        await heard.of("tap0")
    assert await tables.observe() == way(address, "tap0")


@pytest.mark.lab
@pytest.mark.parametrize("kind", ["route", "neighbour"])
async def test_a_route_and_a_neighbour_are_each_heard_of(network: None, address: str, kind: str) -> None:
    ground = PrivateNetwork()
    tables = ground.driver()
    await converge(tables, way(address, "tap0"), "tap0")
    async with hearing(tables) as heard:
        ip(kind, "delete", address, "dev", "tap0")
        await heard.of("tap0")


@pytest.mark.lab
async def test_a_watch_that_was_told_too_much_at_once_says_that_it_missed_some(network: None) -> None:
    ground = PrivateNetwork()
    tables, index = ground.driver(), socket.if_nametoindex("tap0")
    async with hearing(tables) as heard:
        # The event loop does not come to read meanwhile.
        with rtnetlink.Socket() as told:
            for number in range(30_000):
                prefix = ipaddress.ip_network(0x0A000000 + number)
                route = messages.route(messages.IndexedRoute(prefix, index), SETTINGS.table)
                told.change(messages.NEW_ROUTE, route, rtnetlink.Flag.CREATE)
        await heard.of("missed")
        heard.clear()
        ip("route", "delete", "10.0.0.1", "dev", "tap0")
        await heard.of("tap0")


async def test_a_new_driver_sees_what_the_old_one_made(ground: Ground, address: str) -> None:
    await converge(ground.driver(), way(address, "tap0"), "tap0")
    restarted = ground.driver()
    assert await restarted.observe() == way(address, "tap0")
    await converge(restarted, Table(), "tap0")
    assert await restarted.observe() == Table()


async def test_one_guest_among_others(ground: Ground) -> None:
    tables = ground.driver()
    first = Table(way("10.77.0.5", "tap0").routes + way("fd00:77::5", "tap0").routes)
    await converge(tables, first, "tap0")
    await converge(tables, way("10.77.0.6", "tap1"), "tap1")
    assert await tables.observe(["tap0"]) == first
    await converge(tables, Table(), "tap0")
    assert await tables.observe() == way("10.77.0.6", "tap1")


async def test_what_another_protocol_holds_is_neither_seen_nor_touched(ground: Ground, address: str) -> None:
    route = way(address, "tap0").routes[0]
    ground.put_foreign(route.prefix)
    tables, before = ground.driver(), ground.foreign()
    assert await tables.observe() == Table()
    with pytest.raises(errors.Rejected) as refused:
        await tables.apply(plan.SetRoute(route))
    assert refused.value.cause is Cause.PREFIX_TAKEN
    for interface in ("tap0", "tap1"):
        await tables.apply(plan.RemoveRoute(Route(route.prefix, interface)))
    assert ground.foreign() == before


@pytest.fixture(params=["10.77.0.0/26", "10.77.0.5/32", "fd77::/112", "fd00:77::5/128"])
def hole(request: pytest.FixtureRequest) -> Blackhole:
    return Blackhole(str(request.param))


async def test_a_blackhole_is_made_seen_and_removed_and_each_step_may_be_taken_twice(
    ground: Ground, hole: Blackhole
) -> None:
    tables, before = ground.driver(), ground.foreign()
    for step in 2 * plan.plan_blackholes([hole], await tables.blackholes()).steps:
        await tables.apply(step)
    assert await ground.driver().blackholes() == (hole,)
    assert not plan.plan_blackholes([hole], await tables.blackholes())
    assert await tables.observe() == Table()
    assert await ground.driver(port.Settings(table=1077)).blackholes() == ()
    for step in 2 * plan.plan_blackholes([], [hole]).steps:
        await tables.apply(step)
    assert await tables.blackholes() == ()
    assert ground.foreign() == before


async def test_a_blackhole_and_the_routes_in_it_leave_each_other_alone(ground: Ground, address: str) -> None:
    tables, desired = ground.driver(), way(address, "tap0")
    holes = [Blackhole(desired.routes[0].prefix), Blackhole("10.77.0.0/26"), Blackhole("fd00:77::/112")]
    for step in plan.plan_blackholes(holes, ()).steps:
        await tables.apply(step)
    await converge(tables, desired, "tap0")
    assert await tables.observe() == desired
    assert await tables.blackholes() == tuple(sorted(holes))
    ground.lose("tap0")
    assert await tables.blackholes() == tuple(sorted(holes))
    await converge(tables, desired, "tap0")
    for step in plan.plan_blackholes((), holes).steps:
        await tables.apply(step)
    assert await tables.observe() == desired


async def test_a_watch_tells_of_a_blackhole_without_an_interface(ground: Ground, hole: Blackhole) -> None:
    tables = ground.driver()
    await tables.apply(plan.SetBlackhole(hole))
    async with hearing(tables) as heard:
        ground.fill(hole.prefix)
        await heard.of("")
    assert await tables.blackholes() == ()


async def test_a_blackhole_that_is_not_canonical_is_rejected(ground: Ground) -> None:
    for prefix in ("10.77.0.5/26", "FD77::/112", "10.77.0.0"):
        with pytest.raises(errors.Rejected):
            await ground.driver().apply(plan.SetBlackhole(Blackhole(prefix)))
    assert await ground.driver().blackholes() == ()


@pytest.mark.lab
@pytest.mark.parametrize(("prefix", "metric"), [("10.77.0.0/26", "1"), ("fd77::/112", "2")])
async def test_a_blackhole_of_another_protocol_is_foreign(network: None, prefix: str, metric: str) -> None:
    ground = PrivateNetwork()
    ip("route", "add", "blackhole", prefix, "proto", "static", "metric", metric)
    tables, before = ground.driver(), ground.foreign()
    assert await tables.blackholes() == ()
    with pytest.raises(errors.Rejected) as refused:
        await tables.apply(plan.SetBlackhole(Blackhole(prefix)))
    assert refused.value.cause is Cause.PREFIX_TAKEN
    await tables.apply(plan.RemoveBlackhole(Blackhole(prefix)))
    assert ground.foreign() == before


@pytest.mark.lab
async def test_what_is_for_no_guest_of_a_block_is_dropped_and_goes_not_back_to_the_fabric(network: None) -> None:
    PrivateNetwork()
    tables = kernel.Kernel(SETTINGS)
    ip("route", "add", "default", "dev", "tap1")
    await tables.apply(plan.SetBlackhole(Blackhole("10.77.0.0/26")))
    await tables.apply(plan.SetRoute(Route("10.77.0.5/32", "tap0")))
    dropped = subprocess.run(["ip", "route", "get", "10.77.0.9"], check=False, capture_output=True, text=True)
    assert dropped.returncode != 0
    for address, interface in (("10.77.0.5", "tap0"), ("10.77.0.70", "tap1")):
        (chosen,) = json.loads(ip("-json", "route", "get", address))
        assert chosen["dev"] == interface


async def test_an_interface_that_is_not_there_is_awaited(ground: Ground, address: str) -> None:
    tables = ground.driver()
    for step in plan.plan(way(address, "tap7"), Table()).steps:
        with pytest.raises(errors.NotReady) as refused:
            await tables.apply(step)
        assert refused.value.cause is Cause.INTERFACE_MISSING
    for step in plan.plan(Table(), way(address, "tap7")).steps:
        await tables.apply(step)
    assert await tables.observe(["tap7"]) == Table()


async def test_what_led_over_an_interface_goes_with_it(ground: Ground, address: str) -> None:
    tables = ground.driver()
    await converge(tables, way(address, "tap0"), "tap0")
    ground.lose("tap0")
    assert await tables.observe(["tap0"]) == await tables.observe() == Table()
    await converge(tables, way(address, "tap0"), "tap0")
    assert await tables.observe() == way(address, "tap0")


async def test_tables_do_not_see_each_other(ground: Ground, address: str) -> None:
    route = way(address, "tap0").routes[0]
    main, other = ground.driver(), ground.driver(port.Settings(table=1077))
    await main.apply(plan.SetRoute(route))
    assert (await other.observe()).routes == ()
    await other.apply(plan.SetRoute(Route(route.prefix, "tap1")))
    assert (await main.observe()).routes == (route,)
    assert (await other.observe()).routes == (Route(route.prefix, "tap1"),)


async def test_more_interfaces_than_are_asked_for_one_by_one(ground: Ground) -> None:
    tables = ground.driver()
    await converge(tables, way("10.77.0.5", "tap0"), "tap0")
    await converge(tables, way("10.77.0.6", "tap1"), "tap1")
    assert await tables.observe(["tap0", *(f"none{number}" for number in range(20))]) == way("10.77.0.5", "tap0")


async def test_what_is_not_canonical_is_rejected(ground: Ground) -> None:
    tables = ground.driver()
    for step in (
        plan.SetRoute(Route("10.77.0.5/24", "tap0")),
        plan.SetRoute(Route("FD00::5/128", "tap0")),
        plan.SetNeighbour(Neighbour("10.77.0.5", "02-00-00-00-00-05", "tap0")),
    ):
        with pytest.raises(errors.Rejected):
            await tables.apply(step)
    assert await tables.observe() == Table()


async def test_a_simulated_step_fails_where_it_is_told_to() -> None:
    route = Route("10.77.0.5/32", "tap0")
    failure = errors.Unavailable(Cause.FAILED, "told to")
    tables = simulated.Simulated(SETTINGS, fail_at=lambda step: failure if step == plan.SetRoute(route) else None)
    with pytest.raises(errors.Unavailable):
        await tables.apply(plan.SetRoute(route))
    assert await tables.observe() == Table()


@pytest.mark.lab
async def test_an_interface_that_is_down_is_awaited(network: None) -> None:
    PrivateNetwork()
    ip("link", "set", "tap0", "down")
    with pytest.raises(errors.NotReady) as refused:
        await kernel.Kernel(SETTINGS).apply(plan.SetRoute(Route("10.77.0.5/32", "tap0")))
    assert refused.value.cause is Cause.INTERFACE_MISSING


@pytest.mark.lab
async def test_a_neighbour_of_another_protocol_stays(network: None) -> None:
    PrivateNetwork()
    tables = kernel.Kernel(SETTINGS)
    ip("neighbour", "add", "10.77.0.5", "lladdr", MAC, "dev", "tap0", "nud", "permanent")
    before = ip("neighbour", "show")
    await tables.apply(plan.RemoveNeighbour(Neighbour("10.77.0.5", MAC, "tap0")))
    assert await tables.observe() == Table()
    assert ip("neighbour", "show") == before


@pytest.mark.lab
async def test_a_route_that_the_fabric_tells_of_stands_beside_ours(network: None, address: str) -> None:
    PrivateNetwork()
    tables, route = kernel.Kernel(SETTINGS), way(address, "tap0").routes[0]
    ip("route", "add", route.prefix, "dev", "tap1", "proto", "bgp", "metric", "20")
    await tables.apply(plan.SetRoute(route))
    (chosen,) = json.loads(ip("-json", "route", "get", address))
    assert chosen["dev"] == "tap0"
    await tables.apply(plan.RemoveRoute(route))
    (chosen,) = json.loads(ip("-json", "route", "get", address))
    assert chosen["dev"] == "tap1"


@dataclass(frozen=True, slots=True)
class Guest:
    """A guest in a few lines: it holds its tap's other end, and speaks Ethernet, ARP and ICMP."""

    descriptor: int
    mac: bytes
    address: bytes

    def send(self, target: bytes, kind: int, payload: bytes) -> None:
        os.write(self.descriptor, bytes(10) + target + self.mac + kind.to_bytes(2, "big") + payload)

    def receive(self, kind: int) -> bytes:
        """The next frame of this kind, without its virtio header; TimeoutError after two seconds."""
        until = time.monotonic() + 2
        while (left := until - time.monotonic()) > 0 and select.select([self.descriptor], [], [], left)[0]:
            frame = os.read(self.descriptor, 2048)[10:]
            if frame[12:14] == kind.to_bytes(2, "big"):
                return frame
        raise TimeoutError(f"no frame of kind {kind:#06x}")

    def ask_who_has(self, address: bytes) -> bytes:
        """The MAC that answers for the address (RFC 826)."""
        question = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + self.mac + self.address + bytes(6) + address
        self.send(bytes(6 * [0xFF]), 0x0806, question)
        answer = self.receive(0x0806)[14:]
        assert answer[6:8] == b"\x00\x02"
        assert answer[14:18] == address
        return bytes(answer[8:14])

    def echo(self, target: bytes, via: bytes, *, reply: bool = False) -> None:
        """An ICMP echo request, or the reply to one (RFC 792)."""
        head = struct.pack("!BBHHH", 0 if reply else 8, 0, 0, 7, 1)
        icmp = head[:2] + checksum(head) + head[4:]
        packet = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28, 1, 0, 64, 1, 0, self.address, target)
        self.send(via, 0x0800, packet[:10] + checksum(packet) + packet[12:] + icmp)


def checksum(data: bytes) -> bytes:
    """RFC 1071."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return (~total & 0xFFFF).to_bytes(2, "big")


@contextlib.contextmanager
def guest(interface: str, mac: str, address: str) -> Iterator[Guest]:
    """A guest on the tap, opened as QEMU opens it for virtio: IFF_TAP, IFF_NO_PI, IFF_VNET_HDR."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, 0x400454CA, struct.pack("=16sH22x", interface.encode(), 0x2 | 0x1000 | 0x4000))
        yield Guest(descriptor, bytes.fromhex(mac.replace(":", "")), ipaddress.ip_address(address).packed)
    finally:
        os.close(descriptor)


@pytest.mark.lab
async def test_a_guest_reaches_its_gateway_and_another_guest(filtered_network: None) -> None:
    """The truth test of links and routing together: packets."""
    links, tables = tap.Taps(link_port.Settings(cloud="c", host="h")), kernel.Kernel(SETTINGS)
    await links.prepare()
    people = (("tap0", "02:00:00:00:00:05", "10.77.0.5"), ("tap1", "02:00:00:00:00:06", "10.77.0.6"))
    for interface, mac, address in people:
        await links.apply(link_plan.Ensure(Tap(interface, address, 1500)))
        await tables.apply(plan.SetNeighbour(Neighbour(address, mac, interface)))
        await tables.apply(plan.SetRoute(Route(f"{address}/32", interface)))
    gateway, host_mac = ipaddress.ip_address("169.254.1.1").packed, bytes.fromhex(HOST_MAC.replace(":", ""))
    with guest(*people[0]) as one, guest(*people[1]) as other:
        assert one.ask_who_has(gateway) == other.ask_who_has(gateway) == host_mac
        one.echo(gateway, host_mac)
        assert one.receive(0x0800)[26:34] == gateway + one.address
        one.echo(other.address, host_mac)
        request = other.receive(0x0800)
        assert (request[:6], request[6:12], request[26:30]) == (other.mac, host_mac, one.address)
        other.echo(one.address, host_mac, reply=True)
        assert one.receive(0x0800)[26:34] == other.address + one.address
