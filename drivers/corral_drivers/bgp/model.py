"""What a host's routing daemons are asked for and what they show."""

from __future__ import annotations

import enum
import ipaddress
from dataclasses import dataclass

Path = tuple[str, ...]
"""One statement of a configuration, behind the statements that it stands under:
`("router bgp 64512", "address-family ipv4 unicast", "maximum-paths 8")`."""

Lines = tuple[Path, ...]
"""A configuration: its statements in their order; one that others stand under comes before them."""


class Cause(enum.StrEnum):
    """Why the routing daemons could not be looked at or configured."""

    NOT_RUNNING = "NotRunning"
    """A daemon's socket is not there, or nobody listens on it."""

    NOT_ANSWERING = "NotAnswering"
    """A daemon does not answer in time, or with something else than an answer."""

    FOREIGN = "Foreign"
    """The configuration is somebody else's: without our mark, or with another Cloud's or Host's."""

    UNSUPPORTED = "Unsupported"
    """The daemons run with other defaults than those that we count on."""

    INVALID = "Invalid"
    """This can't be asked of them: the message says what."""

    FAILED = "Failed"
    """Anything else: the message has the daemon's own words."""


@dataclass(frozen=True, slots=True, order=True)
class Neighbor:
    """A router that we speak with: over an interface, whoever is at its other end, or at an address; never both.

    Without `asn` it may be of any AS but our own.
    """

    interface: str = ""
    address: str = ""
    asn: int | None = None

    @property
    def name(self) -> str:
        """What the daemons call it."""
        return self.interface or self.address


@dataclass(frozen=True, slots=True)
class Speaker:
    """What one host says to the fabric.

    `addresses` are its own, on its loopback; the first IPv4 one is the router id. `keepalive` and `hold` are seconds.
    Announced are its addresses, each of its `blocks` as a whole, and of the cloud's `pools` the single addresses that
    are in none of its blocks. Prefixes and addresses are in canonical form.
    """

    asn: int
    addresses: tuple[str, ...]
    neighbors: tuple[Neighbor, ...]
    keepalive: int = 3
    hold: int = 9
    bfd: bool = False
    blocks: tuple[str, ...] = ()
    pools: tuple[str, ...] = ()

    @property
    def router_id(self) -> str:
        """The first IPv4 address; empty where there is none."""
        return next((one for one in self.addresses if ipaddress.ip_address(one).version == 4), "")


@dataclass(frozen=True, slots=True)
class Desired:
    """What the daemons should have: the statements of each, and the file that they start from.

    `mark` is who it is for. With `take_over` a foreign configuration gives way.
    """

    zebra: Lines
    bgpd: Lines
    file: str
    mark: str
    take_over: bool = False

    @property
    def lines(self) -> frozenset[Path]:
        """All statements: where FRR reads the file, zebra also takes those of bgpd's that it knows."""
        return frozenset(self.zebra) | frozenset(self.bgpd)

    @property
    def is_silent(self) -> bool:
        """Whether nothing is to be said to anybody."""
        return not self.bgpd


@dataclass(frozen=True, slots=True)
class Observed:
    """What the daemons have, without what says nothing of routing (their version, logs); the file, None without one."""

    zebra: Lines
    bgpd: Lines
    file: str | None


@dataclass(frozen=True, slots=True, order=True)
class Session:
    """How it stands with one neighbor. `state` is BGP's own word (RFC 4271, 8.2.2): Established is the good one.

    `since` is when it was established, in seconds of the epoch, exact to a second or two; 0 where it is not.
    `received` and `sent` are numbers of prefixes, of IPv4 and IPv6 together.
    """

    neighbor: str
    state: str
    since: int = 0
    received: int = 0
    sent: int = 0

    @property
    def is_established(self) -> bool:
        return self.state == "Established"
