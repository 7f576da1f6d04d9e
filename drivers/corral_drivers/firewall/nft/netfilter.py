"""What is said to the kernel over nfnetlink beside libnftables: generations, changes, tracked connections. Pure.

Layouts: `linux/netfilter/nfnetlink.h`, `nf_tables.h`, `nfnetlink_conntrack.h`. pyroute2's NFCTSocket decodes every
attribute of every connection; here one is some microseconds, and only those of a guest of interest are decoded.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Mapping

from corral_drivers import rtnetlink
from corral_drivers.firewall.model import Flow

NETLINK_NETFILTER = 12
TABLE_CHANGES = 1 << 6
"""The group of NFNLGRP_NFTABLES."""

_NFTABLES, _CONNTRACK = 10 << 8, 1 << 8
GET_GENERATION, NEW_GENERATION = _NFTABLES | 16, _NFTABLES | 15
GET_FLOWS, DELETE_FLOW = _CONNTRACK | 1, _CONNTRACK | 2

_HEADER = struct.Struct("=BBH")
"""nfgenmsg: family, version, resource."""

_GENERATION, _TASK = 1, 2
_TABLE = 1
"""The attribute with the table's name, of every message about one (`NFTA_TABLE_NAME`, `NFTA_CHAIN_TABLE`, …)."""

_ORIGINAL, _REPLY, _ID, _ZONE, _NESTED = 1, 2, 12, 18, 0x8000
_ADDRESSES, _PROTOCOL = 1, 2
_PROTOCOL_NUMBER, _SOURCE_PORT, _DESTINATION_PORT = 1, 2, 3
_TYPES, _CODES = (5, 8), (6, 9)
_SOURCES, _DESTINATIONS = (1, 3), (2, 4)

Attributes = Mapping[int, bytes]


def generation_asked() -> bytes:
    """For GET_GENERATION: how often the rule set of this network namespace was changed."""
    return _HEADER.pack(0, 0, 0)


def generation(body: bytes) -> tuple[int, int]:
    """Of NEW_GENERATION: the number of the generation, and the thread that made it."""
    found = rtnetlink.attributes(body, _HEADER.size)
    return _big(found.get(_GENERATION, b"")), _big(found.get(_TASK, b""))


def is_of(kind: int, body: bytes, table: bytes) -> bool:
    """Whether a message of a watch tells of something in this table."""
    if kind & 0xFF00 != _NFTABLES or table not in body:
        return False
    return rtnetlink.attributes(body, _HEADER.size).get(_TABLE, b"").rstrip(b"\0") == table


def flows_asked() -> bytes:
    """For a dump of GET_FLOWS: all of both families."""
    return _HEADER.pack(0, 0, 0)


def flow(body: bytes) -> Flow | None:
    """A tracked connection; None where it is of another family, or has no reply."""
    found = rtnetlink.attributes(body, _HEADER.size)
    asked, answered = _tuple(found.get(_ORIGINAL, b"")), _tuple(found.get(_REPLY, b""))
    if asked is None or answered is None:
        return None
    (source, destination), protocol = asked
    replies, _ = answered
    return Flow(
        protocol=_big(protocol.get(_PROTOCOL_NUMBER, b"")),
        source=source,
        destination=destination,
        sport=_big(_one_of(protocol, (_SOURCE_PORT, *_CODES))),
        dport=_big(_one_of(protocol, (_DESTINATION_PORT, *_TYPES))),
        replies_from=replies[0],
        replies_to=replies[1],
    )


def deleted(body: bytes) -> bytes:
    """For DELETE_FLOW: this very connection of a dump, not one that took its place."""
    found = rtnetlink.attributes(body, _HEADER.size)
    family, _, _ = _HEADER.unpack_from(body)
    zone = rtnetlink.attribute(_ZONE, found[_ZONE]) if _ZONE in found else b""
    return (
        _HEADER.pack(family, 0, 0)
        + rtnetlink.attribute(_ORIGINAL | _NESTED, found[_ORIGINAL])
        + rtnetlink.attribute(_ID, found[_ID])
        + zone
    )


def needle(address: str) -> bytes:
    """What a flow of this address has in it."""
    return ipaddress.ip_address(address).packed


def _tuple(body: bytes) -> tuple[tuple[str, str], Attributes] | None:
    found = rtnetlink.attributes(body, 0)
    addresses = rtnetlink.attributes(found.get(_ADDRESSES, b""), 0)
    source, destination = _one_of(addresses, _SOURCES), _one_of(addresses, _DESTINATIONS)
    if not source or not destination:
        return None
    shown = str(ipaddress.ip_address(source)), str(ipaddress.ip_address(destination))
    return shown, rtnetlink.attributes(found.get(_PROTOCOL, b""), 0)


def _one_of(found: Attributes, kinds: tuple[int, ...]) -> bytes:
    return next((found[kind] for kind in kinds if kind in found), b"")


def _big(value: bytes) -> int:
    """Netfilter's numbers are in the network's order."""
    return int.from_bytes(value, "big")
