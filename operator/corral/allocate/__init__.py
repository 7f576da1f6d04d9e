"""Allocate: which address a guest's interface gets. Pure; called by the controller alone."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Iterator


def allocate(prefixes: Iterable[str], is_taken: Callable[[str], bool]) -> str | None:
    """The first free address of the prefixes, in their order; None where all are taken."""
    return next((address for address in _addresses(prefixes) if not is_taken(address)), None)


def capacity(prefixes: Iterable[str]) -> int:
    """How many addresses guests can have of the prefixes."""
    sizes = (ipaddress.ip_network(prefix).num_addresses for prefix in prefixes)
    return sum(size if size <= 2 else size - 2 for size in sizes)


def overlapping(prefixes: Iterable[str], others: Iterable[str]) -> tuple[str, str] | None:
    """The first two prefixes, one of each side, that have an address in common."""
    theirs = [ipaddress.ip_network(other) for other in others]
    for prefix in prefixes:
        ours = ipaddress.ip_network(prefix)
        for other in theirs:
            if ours.version == other.version and ours.overlaps(other):
                return str(ours), str(other)
    return None


def ledger_name(address: str) -> str:
    """The name of the address' IPAllocation: the API server makes it unique."""
    parsed = ipaddress.ip_address(address)
    if isinstance(parsed, ipaddress.IPv4Address):
        return "v4-" + str(parsed).replace(".", "-")
    return f"v6-{int(parsed):032x}"


def _addresses(prefixes: Iterable[str]) -> Iterator[str]:
    for prefix in prefixes:
        # hosts() leaves out the first and the last address, which many stacks still take for network and broadcast.
        for address in ipaddress.ip_network(prefix).hosts():
            yield str(address)


def contains(prefixes: Iterable[str], address: str) -> bool:
    """Whether the address is of one of the prefixes."""
    parsed = ipaddress.ip_address(address)
    return any(parsed in ipaddress.ip_network(prefix) for prefix in prefixes)
