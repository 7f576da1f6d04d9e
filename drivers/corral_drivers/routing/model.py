"""What the kernel's tables are asked for and what they show."""

from __future__ import annotations

import enum
from dataclasses import dataclass

PROTOCOL = 199
"""The routing protocol number (rtm_protocol, NDA_PROTOCOL) by which we know our own routes and neighbours.

Free in the kernel's and iproute2's list (`/etc/iproute2/rt_protos`); 99 is openr's, 186 and up to 192 are FRR's.
"""


class Cause(enum.StrEnum):
    """Why the kernel could not take a step."""

    INTERFACE_MISSING = "InterfaceMissing"
    """The interface that the route goes out of is not there (yet)."""

    PREFIX_TAKEN = "PrefixTaken"
    """A route of another protocol holds the prefix."""

    FAILED = "Failed"
    """Anything else: the message has the kernel's own words."""


@dataclass(frozen=True, slots=True, order=True)
class Route:
    """The way to one address of a guest: `prefix` such as `10.77.0.5/32`, out of `interface`."""

    prefix: str
    interface: str


@dataclass(frozen=True, slots=True, order=True)
class Neighbour:
    """A permanent neighbour entry: nobody needs to ask the guest, and the neighbour table can't overflow."""

    address: str
    mac: str
    interface: str


@dataclass(frozen=True, slots=True, order=True)
class Blackhole:
    """A route that drops what is for this prefix: for a block of addresses, where no guest here has the address.

    Without it, what is for an unused address would go back to the fabric, which sends it here again.
    """

    prefix: str


@dataclass(frozen=True, slots=True)
class Table:
    """Routes and neighbours together, each sorted and without doubles."""

    routes: tuple[Route, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()
