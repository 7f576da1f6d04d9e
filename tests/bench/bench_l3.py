"""What taps, routes and neighbours cost through the drivers, beside the kernel's own floor and pyroute2, in one run.

Run by hand, as root, on an idle machine: `python tests/bench/bench_l3.py [guests]`. Everything happens in a network
namespace that goes with the process. The floor is one netlink socket in a loop without asyncio or threads.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import ipaddress
import os
import socket
import struct
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

import pyroute2
import rich.console
import rich.table

from corral_drivers import rtnetlink
from corral_drivers.link import messages as link_messages
from corral_drivers.link import plan as link_plan
from corral_drivers.link import port as link_port
from corral_drivers.link import simulated as link_simulated
from corral_drivers.link import tap
from corral_drivers.link.model import Tap
from corral_drivers.routing import kernel, messages, plan, port
from corral_drivers.routing import simulated as routing_simulated
from corral_drivers.routing.model import Neighbour, Route

MTU, MAC, TABLE = 1400, "02:00:00:00:00:05", 254
AT_ONCE = 32
MAKE, MAKE_ONE, REPLACE = rtnetlink.Flag.CREATE, rtnetlink.Flag.EXCLUSIVE, rtnetlink.Flag.REPLACE


@dataclass(frozen=True, slots=True)
class Guest:
    """One guest of the run."""

    name: str
    address: str

    @property
    def route(self) -> Route:
        return Route(f"{self.address}/32", self.name)

    @property
    def neighbour(self) -> Neighbour:
        return Neighbour(self.address, MAC, self.name)


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def floor(guests: list[Guest]) -> dict[str, float]:
    """Raw requests, one after the other, each acknowledged."""
    took = {"make taps": seconds(lambda: raw_taps(guests))}
    with rtnetlink.Socket() as wire:
        index = {guest.name: socket.if_nametoindex(guest.name) for guest in guests}

        def each(kind: int, bodies: Iterable[bytes], flags: rtnetlink.Flag = rtnetlink.Flag.NONE) -> Callable[[], None]:
            ready = list(bodies)

            def run() -> None:
                for body in ready:
                    wire.change(kind, body, flags)

            return run

        fits = (link_messages.fit(index[one.name], MTU, f"corral:c:h:{one.name}") for one in guests)
        ups = (link_messages.set_up(index[one.name]) for one in guests)
        took["make taps"] += seconds(each(link_messages.SET_LINK, fits)) + seconds(each(link_messages.SET_LINK, ups))
        known = [
            messages.neighbour(messages.IndexedNeighbour(ipaddress.ip_address(one.address), MAC, index[one.name]))
            for one in guests
        ]
        ways = [
            messages.route(messages.IndexedRoute(ipaddress.ip_network(one.address), index[one.name]), TABLE)
            for one in guests
        ]
        took["set neighbours"] = seconds(each(messages.NEW_NEIGHBOUR, known, MAKE | REPLACE))
        took["set routes"] = seconds(each(messages.NEW_ROUTE, ways, MAKE | MAKE_ONE))
        took["observe one guest"] = len(guests) * seconds(
            lambda: (
                wire.dump(link_messages.GET_LINK, link_messages.every_tap()),
                wire.dump(messages.GET_ROUTE, messages.routes(socket.AF_INET, TABLE, index[guests[0].name])),
                wire.dump(messages.GET_NEIGHBOUR, messages.neighbours(socket.AF_INET, index[guests[0].name])),
            )
        )
        took["remove routes"] = seconds(each(messages.DELETE_ROUTE, ways))
        group = [link_messages.in_group(index[one.name], 77) for one in guests]
        took["remove taps"] = seconds(each(link_messages.SET_LINK, group)) + seconds(
            each(link_messages.DELETE_LINK, [link_messages.whole_group(77)])
        )
    return took


def raw_taps(guests: list[Guest]) -> None:
    for guest in guests:
        descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        fcntl.ioctl(descriptor, 0x400454CA, struct.pack("=16sH22x", guest.name.encode(), 0x2 | 0x1000 | 0x4000))
        fcntl.ioctl(descriptor, 0x400454CB, 1)
        os.close(descriptor)


def by_pyroute2(guests: list[Guest]) -> dict[str, float]:
    """The same requests through pyroute2's IPRoute; taps are made raw, as it does them in another process."""
    took = {"make taps": seconds(lambda: raw_taps(guests))}
    with pyroute2.IPRoute(strict_check=True) as wire:
        index = {guest.name: socket.if_nametoindex(guest.name) for guest in guests}

        def each(call: Callable[[Guest], object]) -> float:
            return seconds(lambda: [call(guest) for guest in guests])

        took["make taps"] += each(
            lambda one: wire.link(
                "set", index=index[one.name], address="ee:ee:ee:ee:ee:ee", mtu=MTU, ifalias="corral:c:h:o", state="up"
            )
        )
        took["set neighbours"] = each(
            lambda one: wire.neigh(
                "replace", dst=one.address, ifindex=index[one.name], lladdr=MAC, state="permanent", protocol=199
            )
        )
        way = {"proto": 199, "scope": 253}
        took["set routes"] = each(lambda one: wire.route("add", dst=one.route.prefix, oif=index[one.name], **way))
        first = index[guests[0].name]
        took["observe one guest"] = len(guests) * seconds(
            lambda: (
                [one.get("ifalias") for one in wire.link("dump", kind="tun", ext_mask=8)],
                list(wire.get_routes(oif=first, family=socket.AF_INET, table=TABLE)),
                list(wire.neigh("dump", ifindex=first, family=socket.AF_INET)),
            )
        )
        took["remove routes"] = each(lambda one: wire.route("del", dst=one.route.prefix, oif=index[one.name], **way))
        took["remove taps"] = each(lambda one: wire.link("set", index=index[one.name], group=78)) + seconds(
            lambda: wire.link("del", group=78)
        )
    return took


async def through(guests: list[Guest], links: link_port.Links, tables: port.Routing) -> dict[str, float]:
    """Through the drivers, `AT_ONCE` guests at a time, as the agent does it."""

    async def each(call: Callable[[Guest], Awaitable[object]]) -> float:
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(guest: Guest) -> None:
            async with gate:
                await call(guest)

        start = time.perf_counter()
        await asyncio.gather(*map(one, guests))
        return time.perf_counter() - start

    async def observe(guest: Guest) -> None:
        assert len(await links.observe(guest.name)) == 1
        assert len((await tables.observe([guest.name])).routes) == 1

    return {
        "make taps": await each(lambda one: links.apply(link_plan.Ensure(Tap(one.name, one.name, MTU)))),
        "set neighbours": await each(lambda one: tables.apply(plan.SetNeighbour(one.neighbour))),
        "set routes": await each(lambda one: tables.apply(plan.SetRoute(one.route))),
        "observe one guest": await each(observe),
        "remove routes": await each(lambda one: tables.apply(plan.RemoveRoute(one.route))),
        "remove taps": await each(lambda one: links.apply(link_plan.Remove(one.name))),
    }


def main(count: int) -> None:
    if ctypes.CDLL(None, use_errno=True).unshare(0x40000000):
        sys.exit("a network namespace of its own: needs root")
    first = ipaddress.ip_address("10.77.0.1")
    guests = [Guest(f"tap{number}", str(first + number)) for number in range(count)]
    settings = link_port.Settings(cloud="c", host="h")
    bottom, usual = floor(guests), by_pyroute2(guests)
    ours = asyncio.run(through(guests, tap.Taps(settings), kernel.Kernel(port.Settings())))
    world = link_simulated.World()
    imagined = asyncio.run(
        through(
            guests,
            link_simulated.Simulated(settings, world=world),
            routing_simulated.Simulated(port.Settings(), world=routing_simulated.World(index=world.index)),
        )
    )
    table = rich.table.Table(
        "each, µs", "floor", "driver", "driver/floor", "pyroute2", "simulated", title=f"{count} guests on one host"
    )
    for name, least in bottom.items():
        figures = [1e6 * took / count for took in (least, ours[name], usual[name], imagined[name])]
        shown = [f"{figure:,.0f}" for figure in figures]
        table.add_row(name, shown[0], shown[1], f"{figures[1] / figures[0]:.1f}", shown[2], shown[3])
    rich.console.Console().print(table)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
