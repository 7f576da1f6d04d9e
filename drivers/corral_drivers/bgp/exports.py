"""Which prefixes a speaker tells the fabric, and by which one of them an address is reached. Pure.

The same rule stands in the rendered prefix lists; a law holds the two together.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from corral_drivers.bgp.model import Speaker

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def is_exported(speaker: Speaker, prefix: str) -> bool:
    """Whether the fabric may be told of this prefix, where the host has a route to it."""
    network = ipaddress.ip_network(prefix)
    is_single = network.prefixlen == network.max_prefixlen
    if is_single and str(network.network_address) in speaker.addresses:
        return True
    if prefix in speaker.blocks:
        return True
    return is_single and not _holds(speaker.blocks, network) and _holds(speaker.pools, network)


def carrier(speaker: Speaker, address: str) -> str | None:
    """The prefix by which the fabric finds a guest's address here: its block, or itself; None where by none."""
    network = ipaddress.ip_network(address)
    # Of blocks within each other the fabric would take the smallest; any of them leads here.
    block = next((one for one in speaker.blocks if _holds([one], network)), None)
    if block is not None:
        return block
    return str(network) if is_exported(speaker, str(network)) else None


def strays(speaker: Speaker, announced: Iterable[str], routed: Iterable[str]) -> frozenset[str]:
    """What is announced and should not be: no rule lets it out, or it is neither the host's own nor `routed` here."""
    own = {*speaker.blocks, *routed}
    return frozenset(
        prefix
        for prefix in announced
        if not is_exported(speaker, prefix) or (prefix not in own and prefix.split("/")[0] not in speaker.addresses)
    )


def _holds(prefixes: Iterable[str], network: Network) -> bool:
    outers = (ipaddress.ip_network(prefix) for prefix in prefixes)
    return any(
        outer.version == network.version and outer.prefixlen <= network.prefixlen and network.network_address in outer
        for outer in outers
    )
