"""The router's advertisement: the way out, and that addresses come by DHCPv6. Pure.

RFC 4861 4.2 (message), 4191 (routes), 8106 (DNS), 8319 (the longest lifetime). A router's own lifetime has 16 bits, 18
hours; the same way out as a route of its own is for ever, so that a guest whose kernel knows RFC 4191 needs no second
advertisement. No prefix is advertised: a guest's address is alone on its link, and no guest makes up one.
"""

from __future__ import annotations

from collections.abc import Iterator

from corral_drivers.dhcp import domains
from corral_drivers.dhcp.model import INFINITE, Answer, Gateway

SOLICITATION, ADVERTISEMENT = 133, 134

_HOPS, _MANAGED, _OTHER = 64, 0x80, 0x40
_LONGEST_LIFETIME = 0xFFFF
_LINK_ADDRESS, _MTU, _ROUTE, _DNS, _SEARCH = 1, 5, 24, 25, 31
_FOR_EVER = INFINITE.to_bytes(4, "big")
_LEAST_MTU = 1280
_DOMAINS = 640
"""Octets for search domains: an advertisement stays within the least MTU, 1,280."""


def is_solicitation(body: bytes) -> bool:
    """Whether an ICMPv6 message, from its type on, asks for an advertisement (RFC 4861 4.1)."""
    return len(body) >= 8 and body[0] == SOLICITATION and body[1] == 0


def advertisement(said: Answer, gateway: Gateway) -> bytes:
    """What follows the sum of the ICMPv6 message."""
    lifetime = _LONGEST_LIFETIME if said.leads_out else 0
    head = bytes([_HOPS, _MANAGED | _OTHER]) + lifetime.to_bytes(2, "big") + bytes(8)
    return head + b"".join(_option(kind, value) for kind, value in _options(said, gateway))


def _options(said: Answer, gateway: Gateway) -> Iterator[tuple[int, bytes]]:
    yield _LINK_ADDRESS, gateway.mac
    if said.mtu >= _LEAST_MTU:
        yield _MTU, bytes(2) + said.mtu.to_bytes(4, "big")
    if said.leads_out:
        # The prefix of no bits: ::/0, of middle preference.
        yield _ROUTE, bytes(2) + _FOR_EVER
    if said.dns_ipv6:
        yield _DNS, bytes(2) + _FOR_EVER + b"".join(server.packed for server in said.dns_ipv6)
    if names := domains.fitting(said.search_domains, _DOMAINS):
        yield _SEARCH, bytes(2) + _FOR_EVER + names


def _option(kind: int, value: bytes) -> bytes:
    """Its length is in units of eight octets, and it is filled up with zeros."""
    length = (2 + len(value) + 7) // 8
    return (bytes([kind, length]) + value).ljust(length * 8, b"\0")
