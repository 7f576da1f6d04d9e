"""What one more guest costs the firewall, beside the same elements through libnftables alone, in one run.

Run by hand, as root, on an idle machine: `python tests/bench/bench_firewall.py`. Everything happens in a network
namespace that goes with the process. The floor is one call of libnftables a guest, of text that is ready, into sets of
the same number of elements: no plan, no look, no thread. Medians of twenty guests each.
"""

from __future__ import annotations

import asyncio
import ctypes
import functools
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pyroute2
import rich.console
import rich.table

from corral_drivers import rtnetlink
from corral_drivers.firewall import plan, port
from corral_drivers.firewall.model import Group, Network, Observed, Rule, Shared, Tap
from corral_drivers.firewall.nft import driver, library, netfilter, render

TIMES = 20
SIZES = (1, 1000, 5000)
FLOWS = 20_000
SETTINGS = port.Settings(cloud="cloud", host="host")
FLOOR = port.Settings(cloud="floor", host="host")
CONSOLE = rich.console.Console()


def tap(number: int) -> Tap:
    """A guest with an address of each family."""
    four = f"10.{77 + (number >> 16)}.{(number >> 8) & 0xFF}.{number & 0xFF}"
    mac = f"02:00:00:00:{(number >> 8) & 0xFF:02x}:{number & 0xFF:02x}"
    return Tap(f"ct{number:012x}", f"owner-{number}", mac, (four, f"fd77::{number + 1:x}"))


@dataclass(frozen=True, slots=True)
class Cost:
    """Milliseconds by the clock, and of the processor by this process and the kernel for it."""

    wall: float
    processor: float

    def __str__(self) -> str:
        return f"{self.wall:,.2f} / {self.processor:,.2f}"


def cost(work: Callable[[], object]) -> Cost:
    start, busy = time.perf_counter(), time.process_time()
    work()
    return Cost(1e3 * (time.perf_counter() - start), 1e3 * (time.process_time() - busy))


async def took(work: Callable[[], Awaitable[object]]) -> Cost:
    start, busy = time.perf_counter(), time.process_time()
    await work()
    return Cost(1e3 * (time.perf_counter() - start), 1e3 * (time.process_time() - busy))


def median(some: list[Cost]) -> Cost:
    walls, processors = [one.wall for one in some], [one.processor for one in some]
    return Cost(statistics.median(walls), statistics.median(processors))


async def converge(firewall: port.Firewall, shared: Shared, *taps: Tap) -> plan.Plan:
    steps = plan.plan(shared, taps, await firewall.observe())
    for step in steps.steps:
        await firewall.apply(step)
    return steps


async def one(firewall: port.Firewall, owner: str, *taps: Tap) -> None:
    """As the agent does it: look, plan, apply, look again."""
    for step in plan.plan_guest(Shared(), taps, await firewall.observe(owner)).steps:
        await firewall.apply(step)
    assert not plan.plan_guest(Shared(), taps, await firewall.observe(owner))


def elements(new: Tap) -> plan.Change:
    (step,) = plan.plan_guest(Shared(), [new], Observed(laid=True)).steps
    assert isinstance(step, plan.Change)
    return step


Figures = dict[str, Cost]


async def one_more() -> None:
    """The 1st, 1,000th and 5,000th guest."""
    names = ("add", "remove")
    heads = [f"{name}{what}" for what in ("", ": floor", ": ratio") for name in names]
    title = "One more guest: milliseconds by the clock / of the processor"
    table = rich.table.Table("guest", *heads, "nft -f", title=title)
    for size in SIZES:
        there = [tap(number) for number in range(size - 1)]
        new = [tap(10_000 + number) for number in range(TIMES)]
        ours, raw = await through_driver(there, new), through_library(there, new)
        table.add_row(
            f"{size:,}",
            *(str(ours[name]) for name in names),
            *(str(raw[name]) for name in names),
            *(f"{ours[name].processor / raw[name].processor:.1f}" for name in names),
            f"{raw['spawned'].wall:.1f}",
        )
    CONSOLE.print(table)


async def through_driver(there: list[Tap], new: list[Tap]) -> Figures:
    """One at a time, and taken away at once: each is the guest of this number."""
    firewall = driver.Nft(SETTINGS)
    await converge(firewall, Shared(), *there)
    add, remove = [], []
    for guest in new:
        add.append(await took(functools.partial(one, firewall, guest.owner, guest)))
        remove.append(await took(functools.partial(one, firewall, guest.owner)))
    return {"add": median(add), "remove": median(remove)}


def through_library(there: list[Tap], new: list[Tap]) -> Figures:
    """The same by text that is ready, and `nft` started for it."""
    raw = library.Library()
    (laid,) = plan.plan(Shared(), there, Observed()).steps
    assert isinstance(laid, plan.Lay)
    raw.run(render.laid(FLOOR, laid.elements))
    figures: dict[str, list[Cost]] = {"add": [], "remove": [], "spawned": []}
    for guest in new:
        some = elements(guest).add
        add, remove = render.changed(FLOOR, (), some), render.changed(FLOOR, some, ())
        figures["add"].append(cost(functools.partial(raw.run, add)))
        figures["remove"].append(cost(functools.partial(raw.run, remove)))
        figures["spawned"].append(cost(functools.partial(spawn, add)))
        raw.run(remove)
    raw.run("".join(f"delete table {family} {FLOOR.table}\n" for family in ("inet", "arp")))
    return {name: median(some) for name, some in figures.items()}


def spawn(text: str) -> None:
    subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True)


async def whole() -> None:
    """A thousand guests at once, and a process without memory that finds them as they should be."""
    taps = [tap(number) for number in range(1000)]
    first = driver.Nft(SETTINGS)
    await first.apply(plan.Lay(()))
    await first.observe()
    laying = await took(lambda: converge(first, Shared(), *taps))
    fresh = driver.Nft(SETTINGS)
    before = generation()
    looking = await took(fresh.observe)
    seen = await fresh.observe()
    planning = cost(lambda: plan.plan(Shared(), taps, seen))
    assert not plan.plan(Shared(), taps, seen), "a resync where nothing differs has nothing to do"
    assert generation() == before, "and writes nothing"
    reader = library.Library(json=True)
    octets = sum(len(reader.run(f"list table {family} {SETTINGS.table}")) for family in ("inet", "arp"))
    again = await took(fresh.observe)
    spawn("add table inet somebody")
    others = await took(fresh.observe)
    table = rich.table.Table("1,000 guests", "ms / CPU", title=f"Whole host: {len(seen.elements):,} elements")
    table.add_row("all of them in one transaction", str(laying))
    table.add_row(f"full resync: read ({octets / 1e6:.2f} MB of JSON) and compare; writes nothing", str(looking))
    table.add_row("… of that the plan alone", str(planning))
    table.add_row("the next look, nobody having changed anything", str(again))
    table.add_row("the next look, somebody having changed another table", str(others))
    CONSOLE.print(table)


def generation() -> int:
    with rtnetlink.Socket(netfilter.NETLINK_NETFILTER) as kernel:
        return netfilter.generation(kernel.get(netfilter.GET_GENERATION, netfilter.generation_asked()))[0]


async def member() -> None:
    """One member more in a group and a network of a thousand, with a hundred guests of it here."""
    members = tuple(f"10.99.{number >> 8}.{number & 0xFF}" for number in range(1000))

    def shared(*addresses: str) -> Shared:
        rule = Rule(group="web", protocol=6, ports=(80, 80))
        return Shared((Network("net", addresses),), (Group("web", addresses, (rule,)),), ("10.0.0.0/8",))

    taps = [Tap(f"ct{n:012x}", f"o{n}", "02:00:00:00:00:01", (f"10.77.0.{n}",), "net", ("web",)) for n in range(100)]
    firewall = driver.Nft(SETTINGS)
    await converge(firewall, shared(*members), *taps)
    before = generation()
    steps = plan.plan(shared(*members), taps, await firewall.observe())

    async def more() -> None:
        nonlocal steps
        steps = await converge(firewall, shared(*members, "10.99.200.1"), *taps)

    figure = await took(more)
    CONSOLE.print(f"One member more of 1,000: {steps}; {generation() - before} transaction, {figure} ms")


def flows() -> None:
    """Reading the kernel's connections, of which one address is of interest: ours and pyroute2's."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as some:
        for number in range(FLOWS):
            some.sendto(b"", (f"127.0.{number >> 12}.1", 1024 + (number & 0xFFF)))
    needle = netfilter.needle("10.77.0.5")
    found = 0

    def ours() -> None:
        nonlocal found
        with rtnetlink.Socket(netfilter.NETLINK_NETFILTER) as kernel:
            bodies = kernel.dump(netfilter.GET_FLOWS, netfilter.flows_asked())
        found = len(bodies)
        assert not [netfilter.flow(body) for body in bodies if needle in body]

    def theirs() -> None:
        with pyroute2.NFCTSocket() as tracked:
            assert not [one for one in tracked.dump() if one.get_attr("CTA_TUPLE_ORIG") is None]

    least, most = cost(ours), cost(theirs)
    CONSOLE.print(f"Reading {found:,} tracked connections: {least} ms; pyroute2's NFCTSocket {most} ms")


def main() -> None:
    if ctypes.CDLL(None, use_errno=True).unshare(0x40000000):
        sys.exit("a network namespace of its own: needs root")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    asyncio.run(one_more())
    asyncio.run(whole())
    asyncio.run(member())
    flows()


if __name__ == "__main__":
    main()
