"""Joins the lab's hosts to the machine: the way an agent reaches the API server, and a person's shell reaches a guest.

The lab has one management address, on the machine's loopback, for as long as it is up. Each host has a veth: its end
`mgmt0` on the host, the other, `cm-…`, on the machine. Routes are to single addresses (scope link), and one a prefix of
guests, by way of the host that has them. `corral lab up|down` and the tests call it.

Nothing else of the machine is changed, and nothing that is there is taken: a prefix or address that overlaps a route of
the machine is refused. What is ours is told by its interface, a route over a `cm-…` of this lab's, and by the label of
the one address, so that two labs of the same address never take each other's.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pyroute2
from pyroute2.netlink import exceptions

from corral_lab import errors
from corral_lab.host import namespace

# pyroute2 opens its socket in another namespace by a short-lived fork, which it ends by SIGTERM: without this, the
# child would run our own handler, and unwind our stack as if the command had been interrupted.
pyroute2.config.disable_mp_signal = True

HOST_INTERFACE = "mgmt0"

_AF_INET = 2
_SCOPE_LINK = 253
_UNICAST, _LOCAL = 1, 2
_LOOPBACK = ipaddress.IPv4Network("127.0.0.0/8")


@dataclass(frozen=True, slots=True)
class Route:
    """A route of the machine, in any table: where to, and over which interface ("" where over several or none)."""

    prefix: ipaddress.IPv4Network
    interface: str


def machine_interface(host: namespace.Host) -> str:
    """The machine's end of the host's veth: an interface's name has 15 characters, so it is a hash of the names."""
    return f"cm-{hashlib.sha256(f'{host.lab}/{host.name}'.encode()).hexdigest()[:10]}"


def overlap(prefix: ipaddress.IPv4Network, routes: Iterable[Route], ours: Iterable[str]) -> Route | None:
    """The first route, but a default one or one over an interface of `ours`, that shares an address with `prefix`."""
    kept = frozenset(ours)
    for route in sorted(routes, key=lambda route: (route.prefix, route.interface)):
        if route.interface not in kept and route.prefix.prefixlen > 0 and route.prefix.overlaps(prefix):
            return route
    return None


class Management:
    """The management network of the lab called `lab`, whose hosts reach the machine at `address`."""

    def __init__(self, lab: str, address: ipaddress.IPv4Address) -> None:
        self.address = address
        self._label = f"lo:{hashlib.sha256(lab.encode()).hexdigest()[:10]}"

    def check(
        self, hosts: ipaddress.IPv4Network, guests: ipaddress.IPv4Network, members: Iterable[namespace.Host]
    ) -> None:
        """Refuse prefixes that the lab, whose hosts are `members`, can't have, before anything is changed.

        Raises `errors.LabError` where one overlaps a route of the machine that is not this lab's own.
        """
        ours = [machine_interface(each) for each in members]
        with pyroute2.IPRoute() as machine:
            routes = _routes(machine)
            if not self._is_up(machine):
                _refuse_overlap(hosts, routes, ours, what="management prefix")
            _refuse_overlap(guests, routes, ours, what="prefix of the guests")

    def up(self, hosts: ipaddress.IPv4Network) -> None:
        """Give the machine the lab's address, out of the prefix `hosts` that the hosts' addresses come from too.

        Nothing where it has it. Raises `errors.LabError` where the prefix overlaps a route of the machine.
        """
        with pyroute2.IPRoute() as machine:
            if self._is_up(machine):
                return
            _refuse_overlap(hosts, _routes(machine), ours=(), what="management prefix")
            machine.addr("add", index=_index(machine, "lo"), address=str(self.address), prefixlen=32, label=self._label)

    def down(self) -> None:
        """Take the address back; nothing where it is not there. Hosts are disconnected, or down, before."""
        with pyroute2.IPRoute() as machine:
            if self._is_up(machine):
                machine.addr("del", index=_index(machine, "lo"), address=str(self.address), prefixlen=32)

    def connect(self, host: namespace.Host, address: ipaddress.IPv4Address) -> None:
        """Join a host that is up to the machine, at `address`, with a route each way."""
        name = machine_interface(host)
        with _on_host(host) as other, pyroute2.IPRoute() as machine:
            if not _find(machine, name) or not _find(other, HOST_INTERFACE):
                # Half a pair is what an interrupted run leaves; the other half goes with it.
                _delete(machine, name)
                _delete(other, HOST_INTERFACE)
                peer = {"ifname": HOST_INTERFACE, "net_ns_fd": str(host.network_file)}
                machine.link("add", ifname=name, kind="veth", peer=peer)
            here, there = _index(machine, name), _index(other, HOST_INTERFACE)
            machine.link("set", index=here, state="up", ifalias=f"corral lab {host.lab}, host {host.name}")
            other.link("set", index=there, state="up")
            other.addr("replace", index=there, address=str(address), prefixlen=32)
            other.route("replace", dst=f"{self.address}/32", oif=there, scope=_SCOPE_LINK, prefsrc=str(address))
            machine.route("replace", dst=f"{address}/32", oif=here, scope=_SCOPE_LINK, prefsrc=str(self.address))

    def route_guests(
        self,
        prefix: ipaddress.IPv4Network,
        host: namespace.Host,
        via: ipaddress.IPv4Address,
        others: Iterable[namespace.Host] = (),
    ) -> None:
        """Reach the guests of `prefix` from the machine by way of `host`, whose address is `via`.

        `others` are the lab's other hosts, whose routes may overlap (a guest that moved). Raises `errors.LabError`
        where the prefix overlaps a route of the machine or of another lab. The route goes when its host does.
        """
        ours = [machine_interface(each) for each in (host, *others)]
        with pyroute2.IPRoute() as machine:
            _refuse_overlap(prefix, _routes(machine), ours, what="prefix of the guests")
            oif = _index(machine, machine_interface(host))
            machine.route("replace", dst=str(prefix), gateway=str(via), oif=oif, prefsrc=str(self.address))

    def _is_up(self, machine: Any) -> bool:
        found = machine.get_addr(family=_AF_INET, address=str(self.address), index=_index(machine, "lo"))
        return any(one.get("label") == self._label for one in found)


def disconnect(host: namespace.Host) -> None:
    """Remove the host's veth and, with it, every route over it; nothing where there is none."""
    with pyroute2.IPRoute() as machine:
        _delete(machine, machine_interface(host))


def _refuse_overlap(prefix: ipaddress.IPv4Network, routes: Iterable[Route], ours: Iterable[str], *, what: str) -> None:
    found = overlap(prefix, routes, ours)
    if found is not None:
        where = f" over {found.interface}" if found.interface else ""
        raise errors.LabError(
            f"The {what} {prefix} overlaps the route to {found.prefix}{where} of this machine.",
            next_step="Choose another prefix, or take down the lab that has this one.",
        )


def _routes(machine: Any) -> list[Route]:
    """The machine's IPv4 routes of all tables, its own addresses among them, without the loopback prefix."""
    names = {link["index"]: link.get("ifname") for link in machine.get_links()}
    found = []
    for route in machine.get_routes(family=_AF_INET):
        if route["type"] in {_UNICAST, _LOCAL}:
            prefix = ipaddress.IPv4Network((route.get("dst") or 0, route["dst_len"]))
            if not prefix.subnet_of(_LOOPBACK):
                found.append(Route(prefix, names.get(route.get("oif"), "")))
    return found


@contextlib.contextmanager
def _on_host(host: namespace.Host) -> Iterator[Any]:
    with pyroute2.NetNS(str(host.network_file), flags=0) as other:
        yield other


def _find(netlink: Any, name: str) -> int | None:
    found = list(netlink.link_lookup(ifname=name))
    return int(found[0]) if found else None


def _index(netlink: Any, name: str) -> int:
    found = _find(netlink, name)
    if found is None:
        raise errors.LabError(f"The interface {name} is not there.", next_step="Try `corral lab up`.")
    return found


def _delete(netlink: Any, name: str) -> None:
    index = _find(netlink, name)
    if index is not None:
        try:
            netlink.link("del", index=index)
        except exceptions.NetlinkError as error:
            # The other end was removed meanwhile, and this one with it.
            if error.code != errno.ENODEV:
                raise
