"""What a guest is answered on its taps, and why that may fail."""

from __future__ import annotations

import enum
import ipaddress
from dataclasses import dataclass
from typing import TypeVar

AddressT = TypeVar("AddressT", ipaddress.IPv4Address, ipaddress.IPv6Address)

INFINITE = 0xFFFFFFFF
"""A lease, and whatever else has a lifetime of 32 bits, without end (RFC 2131 3.3, RFC 8415 7.7, RFC 8106 5.1)."""


class Cause(enum.StrEnum):
    """Why a guest is not answered."""

    INTERFACE_TAKEN = "InterfaceTaken"
    """Another owner's guest is answered on this interface."""

    UNSUPPORTED = "Unsupported"
    """The agent has no right to packet sockets, or the kernel has none."""

    NO_SPACE = "NoSpace"
    """The host's disk is full."""

    FAILED = "Failed"
    """Anything else: the message has the operating system's own words."""


@dataclass(frozen=True, slots=True, order=True)
class Answer:
    """What the guest with this MAC is told on this interface, and nobody else anywhere.

    `addresses` are without a length: the first of IPv4 is given by DHCP, all of IPv6 by DHCPv6. Only an interface that
    `leads_out` has a default route. `mtu` is in octets.
    """

    interface: str
    mac: str
    mtu: int
    addresses: tuple[str, ...]
    leads_out: bool
    hostname: str
    dns_servers: tuple[str, ...] = ()
    search_domains: tuple[str, ...] = ()

    @property
    def ipv4(self) -> ipaddress.IPv4Address | None:
        """The address that DHCP gives."""
        return next(iter(_of(ipaddress.IPv4Address, self.addresses)), None)

    @property
    def ipv6(self) -> tuple[ipaddress.IPv6Address, ...]:
        """The addresses that DHCPv6 gives; without any, there is no answer over IPv6 at all."""
        return _of(ipaddress.IPv6Address, self.addresses)

    @property
    def dns_ipv4(self) -> tuple[ipaddress.IPv4Address, ...]:
        """The DNS servers that DHCP names."""
        return _of(ipaddress.IPv4Address, self.dns_servers)

    @property
    def dns_ipv6(self) -> tuple[ipaddress.IPv6Address, ...]:
        """The DNS servers that DHCPv6 and router advertisements name."""
        return _of(ipaddress.IPv6Address, self.dns_servers)


@dataclass(frozen=True, slots=True)
class Service:
    """All that one owner's guest is answered: `owner` is its uid; no interface comes twice."""

    owner: str
    answers: tuple[Answer, ...]


@dataclass(frozen=True, slots=True)
class Gateway:
    """Who answers: the host as every guest sees it."""

    ipv4: ipaddress.IPv4Address
    ipv6: ipaddress.IPv6Address
    mac: bytes


def _of(kind: type[AddressT], texts: tuple[str, ...]) -> tuple[AddressT, ...]:
    found = (ipaddress.ip_address(text) for text in texts)
    return tuple(one for one in found if isinstance(one, kind))
