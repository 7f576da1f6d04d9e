"""The sets and maps of the rule set: which family's they are, what an element of each is, and whose it is.

The one place that knows their names beside the rules themselves (`nft/base.nft.j2`), which declare them.
"""

from __future__ import annotations

from dataclasses import dataclass

from corral_drivers.firewall.model import Element

FULL_PROTOCOL, FULL_PORT = "0-255", "0-65535"


@dataclass(frozen=True, slots=True)
class Kind:
    """`key`: the types of nftables; `data`: that of a map. `limit`: a statement that each element has of its own."""

    name: str
    key: tuple[str, ...]
    data: str = ""
    family: str = "inet"
    is_interval: bool = False
    limit: str = ""


def _both(name: str, *key: str, data: str = "", is_interval: bool = False) -> tuple[Kind, Kind]:
    """The two of the two families: `address` stands for the family's type."""
    typed = {"4": "ipv4_addr", "6": "ipv6_addr"}
    four, six = (
        Kind(
            name + version,
            tuple(address if one == "address" else one for one in key),
            address if data == "address" else data,
            is_interval=is_interval,
        )
        for version, address in typed.items()
    )
    return four, six


KINDS: tuple[Kind, ...] = (
    # Whose tap it is, and the number that stands for a name: only their comments say so.
    Kind("guests", ("ifname",), limit="connections"),
    Kind("names", ("mark",)),
    # What a guest may send from.
    Kind("macs", ("ifname", "ether_addr")),
    *_both("sources", "ifname", "ether_addr", "address"),
    Kind("targets", ("ifname", "integer")),
    Kind("solicits", ("ifname",), limit="solicits"),
    Kind("arp_macs", ("ifname", "ether_addr"), family="arp"),
    Kind("arp_sources", ("ifname", "ether_addr", "ipv4_addr"), family="arp"),
    # Networks.
    Kind("networks", ("ifname",), "mark"),
    *_both("homes", "address", data="mark"),
    *_both("reach", "mark", "address"),
    *_both("cloud", "address", is_interval=True),
    *_both("off_limits", "address", is_interval=True),
    # Security groups.
    Kind("open_in", ("ifname",)),
    Kind("open_out", ("ifname",)),
    Kind("policies_in", ("ifname",), "mark"),
    Kind("policies_out", ("ifname",), "mark"),
    *_both("members", "mark", "address", data="mark"),
    *_both("remotes", "mark", "address", data="mark", is_interval=True),
    Kind("grants", ("mark", "inet_proto", "inet_service", "inet_service"), is_interval=True),
    Kind("services", ("inet_proto", "inet_service")),
    # Out and in.
    Kind("nat4", ("ifname",), "ipv4_addr"),
    Kind("nat6", ("ifname",), "ipv6_addr"),
    *_both("direct", "address", is_interval=True),
    *_both("published", "address"),
    *_both("public_in", "address", data="address"),
    *_both("public_out", "address", data="address"),
)
"""Declared in this order."""

BY_NAME = {kind.name: kind for kind in KINDS}

_BY_COMMENT = frozenset({"homes4", "homes6"})


def interface(element: Element) -> str:
    """The tap that the element belongs to; empty where it belongs to all."""
    if element.of in _BY_COMMENT:
        return element.comment
    return element.key[0] if BY_NAME[element.of].key[0] == "ifname" else ""
