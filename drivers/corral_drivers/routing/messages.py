"""What is said to the kernel about a route or a neighbour, and how its answers read. Pure: `kernel.Kernel` sends it.

The kernel shows a route in the layout in which it takes one, so `parse(render(x)) == x`. The family follows from the
address. Layouts: rtnetlink(7), `linux/rtnetlink.h`, `linux/neighbour.h`.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from dataclasses import dataclass

from corral_drivers import rtnetlink
from corral_drivers.routing.model import PROTOCOL

NEW_ROUTE, DELETE_ROUTE, GET_ROUTE, NEW_NEIGHBOUR, DELETE_NEIGHBOUR, GET_NEIGHBOUR = 24, 25, 26, 28, 29, 30

FAMILIES = (socket.AF_INET, socket.AF_INET6)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_ROUTE = struct.Struct("=BBBBBBBBI")
"""rtmsg: family, destination's length, source's length, TOS, table, protocol, scope, type, flags."""

_NEIGHBOUR = struct.Struct("=BxxxiHBB")
"""ndmsg: family, index of the interface, state, flags, type."""

_SCOPE_LINK, _UNICAST, _BLACKHOLE, _PERMANENT, _UNSPECIFIED_TABLE = 253, 1, 6, 0x80, 0
_DESTINATION, _OUT, _PRIORITY, _TABLE = 1, 4, 6, 15
_NEIGHBOUR_ADDRESS, _NEIGHBOUR_MAC, _NEIGHBOUR_INTERFACE, _NEIGHBOUR_PROTOCOL = 1, 2, 8, 12
_FIRST = {socket.AF_INET: 0, socket.AF_INET6: 1}
"""The best metric: a guest that is here goes before a route to it that the fabric tells of. IPv6 reads 0 as 1,024."""

_SECOND = {family: metric + 1 for family, metric in _FIRST.items()}
"""Of blackholes: a block may be one address, whose guest goes before it; what the fabric tells of never does."""


@dataclass(frozen=True, slots=True)
class IndexedRoute:
    """A route of ours, with the number of its interface."""

    network: Network
    index: int


@dataclass(frozen=True, slots=True)
class IndexedNeighbour:
    """A permanent neighbour of ours, with the number of its interface."""

    address: Address
    mac: str
    index: int


def route(asked: IndexedRoute, table: int) -> bytes:
    """For NEW_ROUTE and DELETE_ROUTE, which removes only what agrees in protocol, scope and interface."""
    family, network = _family(asked.network), asked.network
    return (
        _ROUTE.pack(family, network.prefixlen, 0, 0, _UNSPECIFIED_TABLE, PROTOCOL, _scope(family), _UNICAST, 0)
        + rtnetlink.attribute(_TABLE, rtnetlink.u32(table))
        + rtnetlink.attribute(_DESTINATION, network.network_address.packed)
        + rtnetlink.attribute(_PRIORITY, rtnetlink.u32(_FIRST[family]))
        + rtnetlink.attribute(_OUT, rtnetlink.u32(asked.index))
    )


def routes(family: socket.AddressFamily, table: int, index: int | None) -> bytes:
    """For a dump of GET_ROUTE: ours of this family, out of this interface or (None) of any."""
    only = rtnetlink.attribute(_OUT, rtnetlink.u32(index)) if index else b""
    asked = _ROUTE.pack(family, 0, 0, 0, _UNSPECIFIED_TABLE, PROTOCOL, 0, 0, 0)
    return asked + rtnetlink.attribute(_TABLE, rtnetlink.u32(table)) + only


def parse_route(body: bytes, table: int) -> IndexedRoute | None:
    """An answer to GET_ROUTE; None where it is not a route of ours to one place."""
    family, length, _, _, _, protocol, _, kind, _ = _ROUTE.unpack_from(body)
    if (protocol, kind) != (PROTOCOL, _UNICAST) or family not in FAMILIES:
        return None
    found = rtnetlink.attributes(body, _ROUTE.size)
    if not {_DESTINATION, _OUT} <= found.keys() or rtnetlink.number(found.get(_TABLE, b"")) != table:
        return None
    network = ipaddress.ip_network((found[_DESTINATION], length))
    return IndexedRoute(network, rtnetlink.number(found[_OUT]))


def blackhole(network: Network, table: int) -> bytes:
    """For NEW_ROUTE and DELETE_ROUTE."""
    family = _family(network)
    return (
        _ROUTE.pack(family, network.prefixlen, 0, 0, _UNSPECIFIED_TABLE, PROTOCOL, 0, _BLACKHOLE, 0)
        + rtnetlink.attribute(_TABLE, rtnetlink.u32(table))
        + rtnetlink.attribute(_DESTINATION, network.network_address.packed)
        + rtnetlink.attribute(_PRIORITY, rtnetlink.u32(_SECOND[family]))
    )


def blackholes(family: socket.AddressFamily, table: int) -> bytes:
    """For a dump of GET_ROUTE: blackholes of ours of this family."""
    asked = _ROUTE.pack(family, 0, 0, 0, _UNSPECIFIED_TABLE, PROTOCOL, 0, _BLACKHOLE, 0)
    return asked + rtnetlink.attribute(_TABLE, rtnetlink.u32(table))


def parse_blackhole(body: bytes, table: int) -> Network | None:
    """The prefix of an answer to GET_ROUTE; None where it is not a blackhole of ours."""
    family, length, _, _, _, protocol, _, kind, _ = _ROUTE.unpack_from(body)
    if (protocol, kind) != (PROTOCOL, _BLACKHOLE) or family not in FAMILIES:
        return None
    found = rtnetlink.attributes(body, _ROUTE.size)
    if _DESTINATION not in found or rtnetlink.number(found.get(_TABLE, b"")) != table:
        return None
    return ipaddress.ip_network((found[_DESTINATION], length))


def neighbour(asked: IndexedNeighbour) -> bytes:
    """For NEW_NEIGHBOUR."""
    return (
        _NEIGHBOUR.pack(_family(asked.address), asked.index, _PERMANENT, 0, 0)
        + rtnetlink.attribute(_NEIGHBOUR_ADDRESS, asked.address.packed)
        + rtnetlink.attribute(_NEIGHBOUR_MAC, bytes.fromhex(asked.mac.replace(":", "")))
        + rtnetlink.attribute(_NEIGHBOUR_PROTOCOL, bytes([PROTOCOL]))
    )


def one_neighbour(address: Address, index: int) -> bytes:
    """For GET_NEIGHBOUR and DELETE_NEIGHBOUR: this one."""
    return _NEIGHBOUR.pack(_family(address), index, 0, 0, 0) + rtnetlink.attribute(_NEIGHBOUR_ADDRESS, address.packed)


def neighbours(family: socket.AddressFamily, index: int | None) -> bytes:
    """For a dump of GET_NEIGHBOUR: those of this family, on this interface or (None) on any."""
    only = rtnetlink.attribute(_NEIGHBOUR_INTERFACE, rtnetlink.u32(index)) if index else b""
    return _NEIGHBOUR.pack(family, 0, 0, 0, 0) + only


def parse_neighbour(body: bytes) -> IndexedNeighbour | None:
    """An answer to GET_NEIGHBOUR; None where it is not a permanent one of ours."""
    family, index, state, _, _ = _NEIGHBOUR.unpack_from(body)
    if family not in FAMILIES or not state & _PERMANENT:
        return None
    found = rtnetlink.attributes(body, _NEIGHBOUR.size)
    if found.get(_NEIGHBOUR_PROTOCOL) != bytes([PROTOCOL]):
        return None
    address = ipaddress.ip_address(found[_NEIGHBOUR_ADDRESS])
    return IndexedNeighbour(address, found.get(_NEIGHBOUR_MAC, b"").hex(":"), index)


def concerned(kind: int, body: bytes, table: int) -> int | None:
    """The number of the interface whose entries of ours a message of a watch may be about; None where it is not.

    0 stands for blackholes, which lead over none.
    A neighbour that somebody removes is first shown as failed, with our protocol: its state does not matter here.
    """
    if kind in (NEW_ROUTE, DELETE_ROUTE):
        if parse_blackhole(body, table) is not None:
            return 0
        found = parse_route(body, table)
        return None if found is None else found.index
    if kind not in (NEW_NEIGHBOUR, DELETE_NEIGHBOUR):
        return None
    _, index, _, _, _ = _NEIGHBOUR.unpack_from(body)
    ours = rtnetlink.attributes(body, _NEIGHBOUR.size).get(_NEIGHBOUR_PROTOCOL) == bytes([PROTOCOL])
    return int(index) if ours else None


def _family(address: Address | Network) -> socket.AddressFamily:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6


def _scope(family: socket.AddressFamily) -> int:
    """IPv6 knows no scope of a route."""
    return _SCOPE_LINK if family == socket.AF_INET else 0
