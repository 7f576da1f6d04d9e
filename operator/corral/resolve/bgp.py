"""Which host may speak with an AS and an address that two ask for. Pure; the controller asks it for each Host.

Two routers with one address draw each other's traffic, and of two with one AS neither hears of the other. The API
server can't compare two objects; so who has something already keeps it, and who asks for it too is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Identity:
    """What no two hosts may share."""

    asn: int
    addresses: frozenset[str]


def rival(name: str, asked: Identity, given: Mapping[str, Identity]) -> str:
    """What the Host `name` asks for and another has already, in a sentence; empty where there is no such thing.

    `given` is what each host was told last. Where two were told the same at one moment, the first by name keeps it.
    """
    mine = given.get(name)
    for other, has in given.items():
        shared = "" if other == name else _shared(asked, has)
        keeps = mine is not None and name < other and bool(_shared(mine, has))
        if shared and not keeps:
            return f"{shared} is Host {other}'s already"
    return ""


def _shared(one: Identity, other: Identity) -> str:
    if one.asn == other.asn:
        return f"spec.bgp.asn {one.asn}"
    both = one.addresses & other.addresses
    return f"{min(both)} of spec.bgp.addresses" if both else ""
