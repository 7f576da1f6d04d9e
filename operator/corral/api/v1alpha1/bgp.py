"""BGP of a host, as its Host and its HostState have it, and what the host says of its sessions."""

from __future__ import annotations

from typing import Annotated, ClassVar

import pydantic

from corral.api import schema

Asn = Annotated[int, pydantic.Field(ge=1, le=4_294_967_294)]
"""The number of an autonomous system (RFC 6793)."""

KernelInterface = Annotated[
    str, pydantic.Field(min_length=1, max_length=15, pattern=r"^[A-Za-z][-.:_0-9A-Za-z]{0,14}$")
]
"""An interface of the host, as its kernel calls it."""


class BgpNeighbor(schema.Model):
    """A router of the fabric: over an interface, whoever is at its other end, or at an address."""

    interface: KernelInterface | None = None
    """The host's interface to it, such as up1: nothing else need be known of who is there (RFC 8950, link-local)."""

    address: schema.Address | None = None
    """Its address, where it is not found over an interface. It is told the addresses of this one's family."""

    asn: Asn | None = None
    """Its AS; without, any but the host's own."""

    rules: ClassVar[tuple[schema.Rule, ...]] = (
        schema.Rule(
            rule="has(self.interface) != has(self.address)",
            message="a neighbor of spec.bgp.neighbors is given by its interface or by its address: give one of them",
        ),
        schema.Rule(
            rule=(
                "!has(self.address) || "
                "(isIP(self.address) && ip.isCanonical(self.address) && ip(self.address).isGlobalUnicast())"
            ),
            message=(
                "address of a neighbor in spec.bgp.neighbors is an IP address as 192.0.2.1 or 2001:db8::1, in its "
                "shortest form; for a link-local one give the interface instead"
            ),
            field_path=".address",
        ),
    )


class BgpTimers(schema.Model):
    """When a neighbor that is silent is given up; the lower hold time of both ends holds."""

    keepalive: Annotated[int, pydantic.Field(ge=1, le=21845)] = 3
    """Seconds between two signs of life."""

    hold: Annotated[int, pydantic.Field(ge=3, le=65535)] = 9
    """Seconds without one after which a session ends."""

    rules: ClassVar[tuple[schema.Rule, ...]] = (
        schema.Rule(
            # The rule is also asked of the default, which is empty.
            rule="!has(self.hold) || !has(self.keepalive) || self.hold >= self.keepalive",
            message="spec.bgp.timers.hold is below keepalive: give at least three times keepalive",
            field_path=".hold",
        ),
    )


class Bgp(schema.Model):
    """How the host tells the fabric of its addresses, and hears of others."""

    asn: Asn
    """The host's own AS: every host has another one."""

    addresses: Annotated[tuple[schema.Address, ...], pydantic.Field(min_length=1, max_length=8)]
    """The host's own addresses, which it has on its loopback and announces; the first IPv4 one is its router id."""

    neighbors: Annotated[tuple[BgpNeighbor, ...], pydantic.Field(min_length=1, max_length=8)]
    """The routers that it speaks with."""

    timers: BgpTimers = BgpTimers()
    """When a neighbor that is silent is given up."""

    bfd: bool = False
    """True: BFD with each neighbor (RFC 5880), which notices a dead one in under a second. FRR's bfdd must run."""

    take_over: bool = False
    """True: FRR's configuration becomes Corral's, whatever it was. Without, a configuration that is not Corral's is
    left as it is, and the host announces nothing."""

    rules: ClassVar[tuple[schema.Rule, ...]] = (
        schema.Rule(
            rule="self.addresses.all(a, isIP(a) && ip.isCanonical(a) && ip(a).isGlobalUnicast())",
            message=(
                "spec.bgp.addresses are IP addresses as 100.87.0.11 or fd87::11, without a length, in their shortest "
                "form, and neither loopback nor link-local ones"
            ),
            field_path=".addresses",
        ),
        schema.Rule(
            rule="self.addresses.exists(a, isIP(a) && ip(a).family() == 4)",
            message="spec.bgp.addresses has no IPv4 address: add one, the first is the router id",
            field_path=".addresses",
        ),
        schema.Rule(
            rule="self.addresses.all(a, self.addresses.exists_one(b, a == b))",
            message="spec.bgp.addresses names an address twice: remove one",
            field_path=".addresses",
        ),
        schema.Rule(
            rule=(
                "self.neighbors.all(n, self.neighbors.exists_one(m, "
                "(has(n.interface) && has(m.interface) && n.interface == m.interface) || "
                "(has(n.address) && has(m.address) && n.address == m.address)) || "
                "(has(n.interface) == has(n.address)))"
            ),
            message="spec.bgp.neighbors names an interface or an address twice: remove one",
            field_path=".neighbors",
        ),
        schema.Rule(
            rule="self.neighbors.all(n, !has(n.asn) || n.asn != self.asn)",
            message=(
                "a neighbor of spec.bgp.neighbors has the AS of spec.bgp.asn: give each host an AS of its own, because "
                "sessions are external (eBGP)"
            ),
            field_path=".neighbors",
        ),
    )


class BgpSession(schema.Observed):
    """How it stands with one neighbor."""

    neighbor: Annotated[str, pydantic.Field(max_length=64)]
    """Its interface or address."""

    state: Annotated[str, pydantic.Field(max_length=16)]
    """Established, or Down."""

    since: schema.Time | None = None
    """Since when it is established."""

    prefixes_received: Annotated[int, pydantic.Field(ge=0)] = 0
    """How many prefixes it tells, of IPv4 and IPv6 together; told anew at most once a minute."""

    prefixes_sent: Annotated[int, pydantic.Field(ge=0)] = 0
    """How many it is told; told anew at most once a minute."""


class BgpStatus(schema.Observed):
    """How it stands with the fabric."""

    established: Annotated[str, pydantic.Field(max_length=8)] = ""
    """How many sessions are established, of how many."""

    sessions: Annotated[tuple[BgpSession, ...], pydantic.Field(max_length=8)] = ()
    """Each session, in the order of the neighbors' names."""
