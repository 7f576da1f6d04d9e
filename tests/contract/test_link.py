"""The contract of a host's links: the simulated driver and the kernel's taps keep the same promises."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import fcntl
import json
import os
import pathlib
import struct
import subprocess
from collections.abc import Iterator
from typing import Any, Protocol

import pytest

from corral_drivers import errors
from corral_drivers.link import plan, port, simulated, tap
from corral_drivers.link.model import HOST_MAC, Cause, Observed, Tap

from .hearing import hearing
from .network import private_network

SETTINGS = port.Settings(cloud="cloud-1", host="host-1")
OWNER, OTHER = "owner-1", "owner-2"


class Ground(Protocol):
    """Where a driver works, seen from outside."""

    def driver(self, settings: port.Settings = SETTINGS) -> port.Links:
        """A driver that remembers nothing."""
        ...

    def put_foreign(self, name: str, alias: str) -> None:
        """An interface that someone else made."""
        ...

    def spoil(self, name: str) -> None:
        """Someone changes the MTU by hand."""
        ...

    def drop(self, name: str) -> None:
        """Someone removes it by hand."""
        ...

    def ungate(self, name: str) -> None:
        """Someone removes the IPv6 gateway from it by hand."""
        ...

    def shown(self) -> dict[str, Any]:
        """Every interface by name, whoever's, with all that can be seen of it."""
        ...


class Simulation:
    """The simulated world."""

    def __init__(self) -> None:
        self._world = simulated.World(held=lambda _: False)

    def driver(self, settings: port.Settings = SETTINGS) -> port.Links:
        return simulated.Simulated(settings, world=self._world)

    def put_foreign(self, name: str, alias: str) -> None:
        self._world.put(name, simulated.Interface(next(self._world.indices), alias, 1500, "02:00:00:00:00:09"))

    def spoil(self, name: str) -> None:
        there = self._world.interfaces[name]
        self._world.put(name, simulated.Interface(there.index, there.alias, 1300, there.mac))

    def drop(self, name: str) -> None:
        self._world.drop(name)

    def ungate(self, name: str) -> None:
        self._world.put(name, dataclasses.replace(self._world.interfaces[name], gateway=False))

    def shown(self) -> dict[str, Any]:
        return dict(self._world.interfaces)


class PrivateNetwork:
    """A network namespace of its own, in which the whole process is for a while; `ip` is the independent witness."""

    def driver(self, settings: port.Settings = SETTINGS) -> port.Links:
        return tap.Taps(settings)

    def put_foreign(self, name: str, alias: str) -> None:
        ip("tuntap", "add", "dev", name, "mode", "tap")
        if alias:
            ip("link", "set", "dev", name, "alias", alias)

    def spoil(self, name: str) -> None:
        ip("link", "set", "dev", name, "mtu", "1300")

    def drop(self, name: str) -> None:
        ip("link", "delete", name)

    def ungate(self, name: str) -> None:
        ip("address", "delete", "fe80::1/64", "dev", name)

    def shown(self) -> dict[str, Any]:
        return {one["ifname"]: one for one in json.loads(ip("-json", "-details", "link", "show"))}


def ip(*words: str) -> str:
    """iproute2's answer."""
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


def sysctl(name: str, value: str | None = None) -> str:
    """A setting of this network namespace, after it is set where a value is given."""
    setting = pathlib.Path("/proc/sys/net") / name
    if value is not None:
        setting.write_text(value)
    return setting.read_text().strip()


@pytest.fixture(params=["simulated", pytest.param("kernel", marks=pytest.mark.lab)])
def ground(request: pytest.FixtureRequest) -> Iterator[Ground]:
    if request.param == "simulated":
        yield Simulation()
        return
    with private_network():
        yield PrivateNetwork()


@pytest.fixture
def kernel() -> Iterator[PrivateNetwork]:
    with private_network():
        yield PrivateNetwork()


async def converge(links: port.Links, owner: str, *taps: Tap) -> plan.Plan:
    """Observe, plan, apply."""
    steps = plan.plan(taps, await links.observe(owner))
    for step in steps.steps:
        await links.apply(step)
    return steps


def seen(name: str, owner: str = OWNER, mtu: int = 1400) -> Observed:
    return Observed(name, owner, mtu, HOST_MAC, up=True, carrier=False)


async def test_what_is_applied_is_observed_and_then_nothing_is_left_to_do(ground: Ground) -> None:
    links = ground.driver()
    taps = Tap("tap1", OWNER, 1400), Tap("tap0", OWNER, 9000)
    await converge(links, OWNER, *taps)
    assert await links.observe(OWNER) == (seen("tap0", mtu=9000), seen("tap1"))
    assert not await converge(links, OWNER, *taps)


async def test_every_step_may_be_taken_twice(ground: Ground) -> None:
    links = ground.driver()
    for _ in range(2):
        await links.apply(plan.Ensure(Tap("tap0", OWNER, 1400)))
        assert await links.observe(OWNER) == (seen("tap0"),)
    for _ in range(2):
        await links.apply(plan.Remove("tap0"))
    assert await links.observe(OWNER) == ()
    assert "tap0" not in ground.shown()


async def test_what_someone_changed_by_hand_is_put_back(ground: Ground) -> None:
    links = ground.driver()
    await converge(links, OWNER, Tap("tap0", OWNER, 1400))
    ground.spoil("tap0")
    assert await links.observe(OWNER) == (seen("tap0", mtu=1300),)
    await converge(links, OWNER, Tap("tap0", OWNER, 1400))
    assert await links.observe(OWNER) == (seen("tap0"),)


async def test_the_gateway_of_ipv6_is_put_back(ground: Ground) -> None:
    links, taps = ground.driver(), (Tap("tap0", OWNER, 1400), Tap("tap1", OWNER, 1400))
    await converge(links, OWNER, *taps)
    async with hearing(links) as heard:
        ground.ungate("tap1")
        await heard.of(OWNER)
    assert await links.observe(OWNER) == (seen("tap0"), dataclasses.replace(seen("tap1"), gateway=False))
    assert [str(step) for step in (await converge(links, OWNER, *taps)).steps] == ["ensure tap tap1 with MTU 1400"]
    assert await links.observe(OWNER) == (seen("tap0"), seen("tap1"))


async def test_an_owner_sees_only_its_own_and_all_owners_are_known(ground: Ground) -> None:
    links = ground.driver()
    # One owner's name begins with the other's: marks are compared whole.
    await converge(links, OWNER, Tap("tap0", OWNER, 1400))
    await converge(links, OWNER + "0", Tap("tap1", OWNER + "0", 1400))
    assert await links.observe(OWNER) == (seen("tap0"),)
    assert await links.owners() == {OWNER, OWNER + "0"}
    assert await links.observe(OTHER) == ()


async def test_a_new_driver_sees_what_the_old_one_made(ground: Ground) -> None:
    await converge(ground.driver(), OWNER, Tap("tap0", OWNER, 1400))
    restarted = ground.driver()
    assert await restarted.owners() == {OWNER}
    assert not await converge(restarted, OWNER, Tap("tap0", OWNER, 1400))
    await converge(restarted, OWNER)
    assert await restarted.owners() == frozenset()


@pytest.mark.parametrize("alias", ["", "uplink", "corral:cloud-2:host-1:owner-1", "corral:cloud-1:host-2:owner-1"])
async def test_what_is_foreign_is_neither_seen_nor_touched(ground: Ground, alias: str) -> None:
    ground.put_foreign("tap0", alias)
    before, links = ground.shown()["tap0"], ground.driver()
    assert await links.observe(OWNER) == ()
    assert await links.owners() == frozenset()
    with pytest.raises(errors.Rejected) as refused:
        await links.apply(plan.Ensure(Tap("tap0", OWNER, 1400)))
    assert refused.value.cause is Cause.NAME_TAKEN
    await links.apply(plan.Remove("tap0"))
    assert ground.shown()["tap0"] == before


async def test_a_name_that_another_owner_has_is_taken(ground: Ground) -> None:
    links = ground.driver()
    await converge(links, OTHER, Tap("tap0", OTHER, 1400))
    with pytest.raises(errors.Rejected) as refused:
        await links.apply(plan.Ensure(Tap("tap0", OWNER, 1500)))
    assert refused.value.cause is Cause.NAME_TAKEN
    assert await links.observe(OTHER) == (seen("tap0", OTHER),)


@pytest.mark.parametrize(
    "asked", [Tap("sixteen-letters-", OWNER, 1400), Tap("tap%d", OWNER, 1400), Tap("tap0", OWNER, 60)]
)
async def test_what_no_kernel_would_take_is_rejected_and_leaves_nothing(ground: Ground, asked: Tap) -> None:
    before = ground.shown()
    with pytest.raises(errors.Rejected):
        await ground.driver().apply(plan.Ensure(asked))
    assert ground.shown() == before


async def test_many_that_go_at_once_go_alone(ground: Ground) -> None:
    links = ground.driver()
    ground.put_foreign("foreign", "uplink")
    await converge(links, OTHER, Tap("kept", OTHER, 1400))
    before = ground.shown()
    await converge(links, OWNER, *(Tap(f"tap{number}", OWNER, 1400) for number in range(40)))
    await asyncio.gather(
        *(links.apply(plan.Remove(f"tap{number}")) for number in range(40)), links.apply(plan.Remove("foreign"))
    )
    assert ground.shown() == before


async def test_a_watch_tells_whose_tap_was_touched_and_of_no_foreign_one(ground: Ground) -> None:
    links = ground.driver()
    for owner, name in ((OWNER, "tap0"), (OTHER, "tap1")):
        await converge(links, owner, Tap(name, owner, 1400))
    async with hearing(links) as heard:
        ground.put_foreign("foreign", "corral:cloud-2:host-1:owner-1")
        ground.drop("foreign")

        async def remove() -> None:
            ground.drop("tap1")

        await heard.only(OTHER, remove)
        ground.spoil("tap0")
        await heard.of(OWNER)
    heard.clear()
    ground.drop("tap0")
    await converge(links, OWNER, Tap("tap0", OWNER, 1400))
    assert heard == []


async def test_preparing_twice_is_preparing_once(ground: Ground) -> None:
    links = ground.driver()
    await links.prepare()
    await links.prepare()
    assert await links.owners() == frozenset()


async def test_a_simulated_step_fails_where_it_is_told_to() -> None:
    failing = plan.Ensure(Tap("tap1", OWNER, 1400))
    failure = errors.Unavailable(Cause.FAILED, "told to")
    links = simulated.Simulated(SETTINGS, fail_at=lambda step: failure if step == failing else None)
    await links.apply(plan.Ensure(Tap("tap0", OWNER, 1400)))
    with pytest.raises(errors.Unavailable):
        await links.apply(failing)
    assert [tap.name for tap in await links.observe(OWNER)] == ["tap0"]


@pytest.mark.lab
async def test_the_host_forwards_and_has_the_gateway_of_link_scope(kernel: PrivateNetwork) -> None:
    await kernel.driver().prepare()
    (loopback,) = json.loads(ip("-json", "address", "show", "dev", "lo"))
    addresses = {(one["local"], one["prefixlen"], one["scope"]) for one in loopback["addr_info"]}
    assert ("169.254.1.1", 32, "link") in addresses
    assert sysctl("ipv4/ip_forward") == "1"


@pytest.mark.lab
async def test_a_host_whose_gateway_would_stay_silent_says_so(kernel: PrivateNetwork) -> None:
    sysctl("ipv4/conf/all/arp_ignore", "1")
    with pytest.raises(errors.Unavailable) as refused:
        await kernel.driver().prepare()
    assert refused.value.cause is Cause.UNSUPPORTED


@pytest.mark.lab
async def test_a_tap_has_the_gateways_address_alone_and_takes_no_router_for_one(kernel: PrivateNetwork) -> None:
    await converge(kernel.driver(), OWNER, Tap("tap0", OWNER, 1500))
    with held("tap0"):
        (shown,) = json.loads(ip("-json", "address", "show", "dev", "tap0"))
        (address,) = shown["addr_info"]
        assert (address["local"], address["prefixlen"], address["scope"]) == ("fe80::1", 64, "link")
        assert address["nodad"]
        assert "tentative" not in address
    assert sysctl("ipv6/conf/tap0/accept_ra") == "0"


@pytest.mark.lab
async def test_the_host_forwards_ipv6_and_its_uplinks_take_routers_as_before(kernel: PrivateNetwork) -> None:
    for name, accepts in (("up0", "1"), ("quiet0", "0"), ("told0", "2")):
        kernel.put_foreign(name, "")
        sysctl(f"ipv6/conf/{name}/accept_ra", accepts)
    await kernel.driver().prepare()
    assert sysctl("ipv6/conf/all/forwarding") == "1"
    assert [sysctl(f"ipv6/conf/{name}/accept_ra") for name in ("up0", "quiet0", "told0")] == ["2", "0", "2"]
    assert sysctl("ipv6/conf/default/accept_ra") == "1"
    sysctl("ipv6/conf/up0/accept_ra", "1")
    await kernel.driver().prepare()
    assert sysctl("ipv6/conf/up0/accept_ra") == "1", "who is a router already is left as its operator has it"


@pytest.mark.lab
async def test_a_host_without_ipv6_has_taps_all_the_same(kernel: PrivateNetwork) -> None:
    sysctl("ipv6/conf/all/disable_ipv6", "1")
    sysctl("ipv6/conf/default/disable_ipv6", "1")
    links = kernel.driver()
    await links.prepare()
    await converge(links, OWNER, Tap("tap0", OWNER, 1400))
    assert await links.observe(OWNER) == (seen("tap0"),)
    (shown,) = json.loads(ip("-json", "address", "show", "dev", "tap0"))
    assert shown["addr_info"] == []


@pytest.mark.lab
async def test_a_guest_that_holds_its_tap_notices_nothing_of_a_change(kernel: PrivateNetwork) -> None:
    links = kernel.driver()
    await converge(links, OWNER, Tap("tap0", OWNER, 1400))
    with held("tap0") as guest:
        kernel.spoil("tap0")
        await converge(links, OWNER, Tap("tap0", OWNER, 1400))
        assert await links.observe(OWNER) == (Observed("tap0", OWNER, 1400, HOST_MAC, up=True, carrier=True),)
        frame = bytes(6 * [0xFF]) + bytes.fromhex("020000000001") + b"\x08\x06" + bytes(46)
        assert os.write(guest, bytes(10) + frame) == 10 + len(frame)
    assert await links.observe(OWNER) == (seen("tap0"),)


@pytest.mark.lab
async def test_a_tap_goes_even_while_a_guest_holds_it(kernel: PrivateNetwork) -> None:
    links = kernel.driver()
    await converge(links, OWNER, Tap("tap0", OWNER, 1400))
    with held("tap0"):
        await converge(links, OWNER)
        assert "tap0" not in kernel.shown()


@pytest.mark.lab
async def test_a_removal_that_is_called_off_never_happens_later(kernel: PrivateNetwork) -> None:
    links = kernel.driver()
    await converge(links, OWNER, *(Tap(name, OWNER, 1400) for name in ("tap0", "tap1", "tap2")))
    first = asyncio.create_task(links.apply(plan.Remove("tap0")))
    called_off = asyncio.create_task(links.apply(plan.Remove("tap1")))
    await asyncio.sleep(0)
    called_off.cancel()
    await first
    await links.apply(plan.Ensure(Tap("tap1", OWNER, 1400)))
    await links.apply(plan.Remove("tap2"))
    assert await links.observe(OWNER) == (seen("tap1"),)


@contextlib.contextmanager
def held(name: str) -> Iterator[int]:
    """The guest's end of a tap, opened as QEMU opens it for virtio: IFF_TAP, IFF_NO_PI, IFF_VNET_HDR."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, 0x400454CA, struct.pack("=16sH22x", name.encode(), 0x2 | 0x1000 | 0x4000))
        yield descriptor
    finally:
        os.close(descriptor)
