"""Brings the fabric up and takes it down: the spines, their cables to the hosts and to this machine, the routes.

`corral_lab.lab` and the tests of the fabric call it. A spine is a lab host on which only FRR runs. A cable is a veth:
`up1` and `up2` on a host, an interface of the host's name on the spine; `edge0` on the spine, `cs-…` on this machine.
Cables between routers have no addresses but IPv6 link-local ones: BGP runs over those (RFC 5549), and carries IPv4 too.

What is ours on this machine is told by the interface, as in `host.management`: the machine's loopback addresses are on
the `cs-…` themselves, and go with them, as do the routes.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from concurrent import futures
from pathlib import Path
from typing import Any

import pyroute2

from corral_lab import files, process
from corral_lab.fabric import render
from corral_lab.host import frr, lifecycle, management, namespace
from corral_lab.host import machine as network
from corral_lab.options import SPINES, Loopback, Options

EDGE = "edge0"

_GATEWAY = "fe80::1"
"""A spine's address on its cable to this machine: a neighbour answers for its loopback to ARP, not to IPv6's ND."""

_ADMITTED_WITHIN = 10.0
"""Seconds in which a spine that comes back is told of everything; sessions take two or three."""

_UPLINKS = 1000
"""The index of a host's uplink is this and the spine's number. Were it the same as its peer's, as most would be, the
kernel would take the loss of its carrier for one that can wait a second (net/core/link_watch.c)."""

# Of the machine's end of a spine's cable. Source: the kernel's Documentation/networking/ip-sysctl.rst.
_SWITCHES = {
    # A spine that is off takes the carrier with it, and its share of the packets goes by the other one.
    "ipv4/conf/{}/ignore_routes_with_linkdown": 1,
    "ipv6/conf/{}/ignore_routes_with_linkdown": 1,
    # The answer may come by the other spine.
    "ipv4/conf/{}/rp_filter": 2,
    # Nobody else is at the other end: an address of ours is good at once, and no router there tells us its prefixes.
    "ipv6/conf/{}/disable_ipv6": 0,
    "ipv6/conf/{}/accept_dad": 0,
    "ipv6/conf/{}/accept_ra": 0,
}


def uplink(number: int) -> str:
    """A host's end of its cable to the spine of this number."""
    return f"up{number}"


def machine_interface(spine: namespace.Host) -> str:
    """The machine's end of the spine's cable."""
    return network.interface("cs", spine)


class Fabric:
    """The fabric of the lab called `lab`, whose spines keep their files in `folder`."""

    def __init__(self, lab: str, folder: Path, options: Options) -> None:
        self.options = options
        self.spines = tuple(namespace.Host(lab, f"s{number}", folder / f"s{number}") for number in range(1, SPINES + 1))

    def check(self, members: Iterable[namespace.Host]) -> None:
        """Refuse prefixes that the lab, whose hosts are `members`, can't have, before anything is changed.

        Raises `errors.LabError` where one overlaps a route of the machine that is not this lab's own.
        """
        ours = [*map(machine_interface, self.spines), *map(management.machine_interface, members)]
        with pyroute2.IPRoute() as machine:
            routes = network.routes(machine)
        for what, prefix in self.options.fabric.items():
            network.refuse_overlap(prefix, routes, ours, what=what)

    def up(self, hosts: Iterable[str]) -> None:
        """Make the spines be there, cabled to this machine, with routes of the machine over all of them.

        `hosts` are the names of all hosts that may be connected. A spine that comes back carries nothing of the
        machine's before `admit`. Raises `errors.LabError` as `lifecycle.up` does.
        """
        names = tuple(hosts)
        with futures.ThreadPoolExecutor() as pool:
            list(pool.map(lifecycle.up, self.spines))
        for number, spine in enumerate(self.spines, start=1):
            self._cable_machine(number, spine)
            self._configure(number, spine, names)
        frr.start(self.spines)
        self._route()
        if not any(map(_is_admitted, self.spines)):
            self.admit()

    def connect(self, host: namespace.Host) -> None:
        """Cable a host that is up to the spines; nothing where it is. Its loopback addresses are its FRR's to have."""
        with network.on_host(host) as on_host:
            for ordinal, spine in enumerate(self.spines, start=1):
                with network.on_host(spine) as on_spine:
                    _cable(on_host, uplink(ordinal), spine, on_spine, host.name, index=_UPLINKS + ordinal)
                    _up(on_host, uplink(ordinal))
                    if process.find(spine.supervisor):
                        _up(on_spine, host.name)

    def admit(self) -> None:
        """Let the machine send to all spines. Hosts that are up are connected before.

        The machine speaks no BGP: it sends to whichever spine has a carrier. So one that comes back while another
        serves has its carrier when it was told as much as that one, or after a while in any case.
        """
        for number, spine in enumerate(self.spines, start=1):
            serving = [other for other in self.spines if other != spine and _is_admitted(other)]
            if not _is_admitted(spine) and serving:
                _wait_until_it_knows(spine, serving)
            self._open(number, spine)

    def cut_power(self, number: int) -> None:
        """End all that runs on this spine at once: who is at the other end of its cables loses the carrier.

        `up`, `connect` and `admit` bring it back.
        """
        lifecycle.end_at_once(self.spines[number - 1])

    def down(self, *, keep: bool) -> None:
        """Leave nothing of the fabric: no process, namespace, interface or route, and no file unless `keep`."""
        for spine in self.spines:
            with pyroute2.IPRoute() as machine:
                network.delete(machine, machine_interface(spine))
            (lifecycle.stop if keep else lifecycle.down)(spine)

    def _configure(self, number: int, spine: namespace.Host, hosts: tuple[str, ...]) -> None:
        own = self.options.spine_loopback(number)
        texts = {
            frr.ZEBRA: render.zebra(number),
            frr.BGPD: render.bgpd(number, own, self.options.machine_loopback, hosts),
        }
        for daemon, text in texts.items():
            file = spine.own("/etc/frr") / f"{daemon}.conf"
            if not file.exists() or file.read_text() != text:
                # A daemon reads it at its start alone.
                frr.stop(spine)
                files.replace(file, text, mode=0o644)

    def _cable_machine(self, number: int, spine: namespace.Host) -> None:
        """Cable the spine to the machine; the cable has no carrier yet."""
        own, machines = self.options.spine_loopback(number), self.options.machine_loopback
        name = machine_interface(spine)
        with pyroute2.IPRoute() as machine, network.on_host(spine) as on_spine:
            _cable(machine, name, spine, on_spine, EDGE)
            for switch, value in _SWITCHES.items():
                Path("/proc/sys/net", switch.format(name)).write_text(f"{value}\n")
            here = _up(machine, name)
            _have(on_spine, "lo", own)
            _have(machine, name, machines)
            machine.route("replace", dst=f"{own.v4}/32", oif=here, scope=network.SCOPE_LINK, prefsrc=str(machines.v4))
            machine.route("replace", family=network.AF_INET6, dst=f"{own.v6}/128", gateway=_GATEWAY, oif=here)

    def _open(self, number: int, spine: namespace.Host) -> None:
        """Give the spine's cable to the machine its carrier, and the spine the way to the machine."""
        own, machines = self.options.spine_loopback(number), self.options.machine_loopback
        with network.on_host(spine) as on_spine:
            edge = _up(on_spine, EDGE)
            on_spine.addr("replace", index=edge, address=_GATEWAY, prefixlen=64)
            on_spine.route("replace", dst=f"{machines.v4}/32", oif=edge, scope=network.SCOPE_LINK, prefsrc=str(own.v4))
            on_spine.route("replace", family=network.AF_INET6, dst=f"{machines.v6}/128", oif=edge)

    def _route(self) -> None:
        """Reach every prefix of the fabric over all spines alike."""
        source = self.options.machine_loopback
        with pyroute2.IPRoute() as machine:
            hops = [
                (network.index(machine, machine_interface(spine)), self.options.spine_loopback(number))
                for number, spine in enumerate(self.spines, start=1)
            ]
            v4 = [{"oif": index, "gateway": str(loopback.v4)} for index, loopback in hops]
            v6 = [{"oif": index, "gateway": _GATEWAY} for index, _ in hops]
            for prefix in self.options.fabric.values():
                if prefix.version == 4:
                    machine.route("replace", dst=str(prefix), multipath=v4, prefsrc=str(source.v4))
                else:
                    machine.route(
                        "replace", family=network.AF_INET6, dst=str(prefix), multipath=v6, prefsrc=str(source.v6)
                    )


def _is_admitted(spine: namespace.Host) -> bool:
    with network.on_host(spine) as netlink:
        return any(link["state"] == "up" for link in netlink.get_links(ifname=EDGE))


def _wait_until_it_knows(spine: namespace.Host, others: Iterable[namespace.Host]) -> None:
    deadline = time.monotonic() + _ADMITTED_WITHIN
    while time.monotonic() < deadline:
        told = frr.told(spine)
        if all(told.get(peer, 0) >= prefixes for other in others for peer, prefixes in frr.told(other).items()):
            return
        time.sleep(0.1)


def _cable(
    here: Any, name: str, there_host: namespace.Host, there: Any, peer_name: str, *, index: int | None = None
) -> None:
    """Have a veth: `name` here, `peer_name` there. Half a pair is what an interrupted run leaves; it goes."""
    if network.find(here, name) is None or network.find(there, peer_name) is None:
        network.delete(here, name)
        network.delete(there, peer_name)
        peer = {"ifname": peer_name, "net_ns_fd": str(there_host.network_file)}
        chosen = {} if index is None else {"index": index}
        here.link("add", ifname=name, kind="veth", peer=peer, **chosen)


def _up(netlink: Any, name: str) -> int:
    index = network.index(netlink, name)
    netlink.link("set", index=index, state="up")
    return index


def _have(netlink: Any, name: str, loopback: Loopback) -> None:
    index = network.index(netlink, name)
    netlink.addr("replace", index=index, address=str(loopback.v4), prefixlen=32)
    netlink.addr("replace", index=index, address=str(loopback.v6), prefixlen=128)
