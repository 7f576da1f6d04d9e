"""Joins the lab's hosts to the machine: the way an agent reaches the API server. To guests, `corral_lab.fabric` leads.

The lab has one management address, on the machine's loopback, for as long as it is up. Each host has a veth: its end
`mgmt0` on the host, the other, `cm-…`, on the machine. Routes are to single addresses (scope link). `corral lab up`
and `down` call it, and the tests.

Nothing else of the machine is changed, and nothing that is there is taken: a prefix or address that overlaps a route of
the machine is refused. What is ours is told by its interface, a route over a `cm-…` of this lab's, and by the label of
the one address, so that two labs of the same address never take each other's.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable
from typing import Any

import pyroute2

from corral_lab.host import machine as network
from corral_lab.host import namespace

HOST_INTERFACE = "mgmt0"


def machine_interface(host: namespace.Host) -> str:
    """The machine's end of the host's veth."""
    return network.interface("cm", host)


class Management:
    """The management network of the lab called `lab`, whose hosts reach the machine at `address`."""

    def __init__(self, lab: str, address: ipaddress.IPv4Address) -> None:
        self.address = address
        self._label = f"lo:{hashlib.sha256(lab.encode()).hexdigest()[:10]}"

    def check(self, hosts: ipaddress.IPv4Network, members: Iterable[namespace.Host]) -> None:
        """Refuse a prefix that the lab, whose hosts are `members`, can't have, before anything is changed.

        Raises `errors.LabError` where it overlaps a route of the machine that is not this lab's own.
        """
        ours = [machine_interface(each) for each in members]
        with pyroute2.IPRoute() as machine:
            if not self._is_up(machine):
                network.refuse_overlap(hosts, network.routes(machine), ours, what="management prefix")

    def up(self, hosts: ipaddress.IPv4Network) -> None:
        """Give the machine the lab's address, out of the prefix `hosts` that the hosts' addresses come from too.

        Nothing where it has it. Raises `errors.LabError` where the prefix overlaps a route of the machine.
        """
        with pyroute2.IPRoute() as machine:
            if self._is_up(machine):
                return
            network.refuse_overlap(hosts, network.routes(machine), ours=(), what="management prefix")
            machine.addr(
                "add", index=network.index(machine, "lo"), address=str(self.address), prefixlen=32, label=self._label
            )

    def down(self) -> None:
        """Take the address back; nothing where it is not there. Hosts are disconnected, or down, before."""
        with pyroute2.IPRoute() as machine:
            if self._is_up(machine):
                machine.addr("del", index=network.index(machine, "lo"), address=str(self.address), prefixlen=32)

    def connect(self, host: namespace.Host, address: ipaddress.IPv4Address) -> None:
        """Join a host that is up to the machine, at `address`, with a route each way."""
        name = machine_interface(host)
        with network.on_host(host) as other, pyroute2.IPRoute() as machine:
            if not network.find(machine, name) or not network.find(other, HOST_INTERFACE):
                # Half a pair is what an interrupted run leaves; the other half goes with it.
                network.delete(machine, name)
                network.delete(other, HOST_INTERFACE)
                peer = {"ifname": HOST_INTERFACE, "net_ns_fd": str(host.network_file)}
                machine.link("add", ifname=name, kind="veth", peer=peer)
            here, there = network.index(machine, name), network.index(other, HOST_INTERFACE)
            machine.link("set", index=here, state="up", ifalias=f"corral lab {host.lab}, host {host.name}")
            other.link("set", index=there, state="up")
            other.addr("replace", index=there, address=str(address), prefixlen=32)
            other.route("replace", dst=f"{self.address}/32", oif=there, scope=network.SCOPE_LINK, prefsrc=str(address))
            machine.route("replace", dst=f"{address}/32", oif=here, scope=network.SCOPE_LINK, prefsrc=str(self.address))

    def _is_up(self, machine: Any) -> bool:
        found = machine.get_addr(family=network.AF_INET, address=str(self.address), index=network.index(machine, "lo"))
        return any(one.get("label") == self._label for one in found)


def disconnect(host: namespace.Host) -> None:
    """Remove the host's veth and, with it, every route over it; nothing where there is none."""
    with pyroute2.IPRoute() as machine:
        network.delete(machine, machine_interface(host))
