"""What a host's firewall is asked for, in words of guests and networks, and what it shows: elements of sets.

Addresses and prefixes are text in the form that the kernel shows (`10.77.0.5`, `fd77::/64`). Networks and groups are
opaque names: no host learns what a tenant calls them.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field


class Cause(enum.StrEnum):
    """Why the firewall could not take a step."""

    UNSUPPORTED = "Unsupported"
    """The host has no nftables, or the agent no right to change them."""

    REFUSED = "Refused"
    """The kernel refused a transaction: the rules are those from before it, whole."""

    FAILED = "Failed"
    """Anything else: the message has the words of the kernel or of libnftables."""


@dataclass(frozen=True, slots=True, order=True)
class Tap:
    """A guest's NIC: `owner` is the guest's uid, `interface` its tap, `mac` and `addresses` all that it may send from.

    `network` is the one that it belongs to; without, it is isolated from nobody. `groups` are its security groups;
    without, everything is let in and out. `nat` has at most one address a family: of this host, from which the guest is
    seen outside.
    """

    interface: str
    owner: str
    mac: str
    addresses: tuple[str, ...]
    network: str = ""
    groups: tuple[str, ...] = ()
    nat: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, order=True)
class Network:
    """Who is in it, by address, and with which others it talks."""

    name: str
    members: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, order=True)
class Rule:
    """What is let through: `remote` is a prefix, `group` a security group; neither: everybody.

    `protocol` is a number of IP (RFC 5237), None for all. `ports` are of the destination, first and last, for TCP, UDP,
    SCTP; `kind` is the type of an ICMP message. None for all.
    """

    remote: str = ""
    group: str = ""
    protocol: int | None = None
    ports: tuple[int, int] | None = None
    kind: int | None = None


@dataclass(frozen=True, slots=True, order=True)
class Group:
    """A security group: its members' addresses, and what is let into its guests and out of them.

    `egress` None lets everything out.
    """

    name: str
    members: tuple[str, ...] = ()
    ingress: tuple[Rule, ...] = ()
    egress: tuple[Rule, ...] | None = None


@dataclass(frozen=True, slots=True, order=True)
class Floating:
    """A public address that stands for a guest's, statelessly and both ways."""

    public: str
    private: str


@dataclass(frozen=True, slots=True, order=True)
class Service:
    """What every guest may ask its gateway for: a protocol's number and a port."""

    protocol: int
    port: int


@dataclass(frozen=True, slots=True)
class Shared:
    """What the taps of a host have in common.

    `prefixes` are the cloud's own: within them only a network's members and its peers' are reached, and no NAT is done
    towards them. A guest's address in `direct` gets no NAT anywhere. No guest sends to `off_limits` (the hosts' own).
    """

    networks: tuple[Network, ...] = ()
    groups: tuple[Group, ...] = ()
    prefixes: tuple[str, ...] = ()
    direct: tuple[str, ...] = ()
    off_limits: tuple[str, ...] = ()
    floating: tuple[Floating, ...] = ()
    services: tuple[Service, ...] = ()


@dataclass(frozen=True, slots=True, order=True)
class Element:
    """One element of a set, or of a map where it has `data`.

    `key` has one text a field: an interface, an address, a MAC, a number, or a range such as `80-443`.
    """

    of: str
    key: tuple[str, ...]
    data: str = ""
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Flow:
    """A connection that the kernel tracks, as its first packet asked; `dport` and `sport` are type and code of ICMP.

    `replies_from` and `replies_to` are where answers come from and go to: they differ where NAT is done.
    """

    protocol: int
    source: str
    destination: str
    sport: int
    dport: int
    replies_from: str
    replies_to: str


@dataclass(frozen=True, slots=True)
class Observed:
    """What is there of ours: all of it, or of one owner.

    `laid`: the tables, chains and rules are as this driver makes them. `judged`: since this process started, flows were
    compared with what may be. `names` are the numbers that stand for networks, policies and grants, of all.
    """

    laid: bool = False
    judged: bool = False
    elements: frozenset[Element] = frozenset()
    names: Mapping[str, int] = field(default_factory=dict)
