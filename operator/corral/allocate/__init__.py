"""Allocate: which address a guest's interface gets, and of which block. Pure; called by the controller alone."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MOST_TOLD = 2**53 - 1
"""The largest number that every reader of JSON understands: IPv6 has more addresses than that."""


def capacity(prefixes: Iterable[str]) -> int:
    """How many addresses guests can have of the prefixes; never more than `MOST_TOLD`."""
    networks = (ipaddress.ip_network(prefix) for prefix in prefixes)
    return min(sum(one.num_addresses - len(kept_back(one)) for one in networks), MOST_TOLD)


def kept_back(prefix: Network) -> frozenset[int]:
    """The addresses of a pool's prefix that no guest gets, as numbers.

    IPv4: the first and the last, which many stacks still take for network and broadcast. IPv6: the first, the
    subnet's anycast address of routers (RFC 4291). None where there are not more than two.
    """
    if prefix.num_addresses <= 2:
        return frozenset()
    first = int(prefix.network_address)
    return frozenset({first, int(prefix.broadcast_address)} if prefix.version == 4 else {first})


def overlapping(prefixes: Iterable[str], others: Iterable[str]) -> tuple[str, str] | None:
    """The first two prefixes, one of each side, that have an address in common."""
    theirs = [ipaddress.ip_network(other) for other in others]
    for prefix in prefixes:
        ours = ipaddress.ip_network(prefix)
        for other in theirs:
            if ours.version == other.version and ours.overlaps(other):
                return str(ours), str(other)
    return None


def contains(prefixes: Iterable[str], address: str) -> bool:
    """Whether the address is of one of the prefixes."""
    parsed = ipaddress.ip_address(address)
    return any(parsed in ipaddress.ip_network(prefix) for prefix in prefixes)


def versions(prefixes: Iterable[str]) -> frozenset[int]:
    """The families of the prefixes: 4, 6, or both."""
    return frozenset(ipaddress.ip_network(prefix).version for prefix in prefixes)


def version(address: str) -> int:
    """The family of the address: 4 or 6."""
    return ipaddress.ip_address(address).version


def ordered(prefixes: Iterable[str]) -> Sequence[str]:
    """The prefixes as they are shown, each once: IPv4 first, by their numbers."""
    networks = {ipaddress.ip_network(prefix) for prefix in prefixes}
    return [
        str(one) for one in sorted(networks, key=lambda one: (one.version, int(one.network_address), one.prefixlen))
    ]


def ledger_name(address: str) -> str:
    """The name of the address' IPAllocation: the API server makes it unique."""
    parsed = ipaddress.ip_address(address)
    if isinstance(parsed, ipaddress.IPv4Address):
        return "v4-" + str(parsed).replace(".", "-")
    return f"v6-{int(parsed):032x}"


def block_name(prefix: str) -> str:
    """The name of the block's IPBlock: the API server makes it unique."""
    parsed = ipaddress.ip_network(prefix)
    return f"{ledger_name(str(parsed.network_address))}-{parsed.prefixlen}"
