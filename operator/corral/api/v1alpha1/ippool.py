"""IPPool, IPBlock, IPAllocation: the prefixes that an operator gives, and the ledgers of what is taken of them."""

from __future__ import annotations

from typing import Annotated, ClassVar

import pydantic

from corral.api import schema
from corral.api.v1alpha1.conditions import Conditions
from corral.api.v1alpha1.references import NetworkRef, Owner, PoolRef

_NOT_ROUTED = (
    *("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3"),
    *("::/8", "fe80::/10", "ff00::/8"),
)
"""This host, loopback, link-local (where every guest's gateway is), multicast and reserved, also as IPv4-mapped
(RFC 6890, RFC 4291)."""


COOL_DOWN = 60
"""Seconds that an address rests where its pool does not say otherwise: longer than most caches and idle flows live."""


class BlockSize(schema.Model):
    """How large a host's blocks are, as the length of their prefixes."""

    ipv4: Annotated[int, pydantic.Field(ge=20, le=32)] = 26
    """Prefix length of an IPv4 block: 26 gives a host 64 addresses at a time, and is one route in the fabric."""

    ipv6: Annotated[int, pydantic.Field(ge=112, le=128)] = 112
    """Prefix length of an IPv6 block: 112 gives a host 65,536 addresses, which is one route for life."""


class IPPoolSpec(schema.Model):
    """Which addresses guests may have."""

    prefixes: Annotated[tuple[schema.Prefix, ...], pydantic.Field(min_length=1, max_length=16)]
    """IPv4 and IPv6 prefixes such as 10.77.0.0/24 and fd77::/64. Guests get all of their addresses but the first and
    the last of an IPv4 prefix and the first of an IPv6 one; an interface gets one address of each family that there is.
    No two pools overlap: of two that do, the later one gives none."""

    block_size: BlockSize = BlockSize()
    """How large the blocks are that hosts are given of the pool. For life."""

    cool_down_seconds: Annotated[int, pydantic.Field(ge=0, le=86400)] = COOL_DOWN
    """How long an address rests after its guest is gone, before another guest is given it: what others still know of
    the former one runs out meanwhile."""

    rules: ClassVar[tuple[schema.Rule, ...]] = (
        schema.Rule(
            rule="self.prefixes.all(p, isCIDR(p))",
            message="spec.prefixes are IPv4 or IPv6 prefixes such as 10.77.0.0/24 or fd77::/64",
            field_path=".prefixes",
        ),
        schema.Rule(
            rule="self.prefixes.all(p, !isCIDR(p) || cidr(p) == cidr(p).masked())",
            message="a prefix of spec.prefixes has host bits set: write 10.77.0.0/24, not 10.77.0.5/24",
            field_path=".prefixes",
        ),
        schema.Rule(
            rule=(
                "self.prefixes.all(p, !isCIDR(p) || cidr(p).prefixLength() >= (cidr(p).ip().family() == 4 ? 12 : 32))"
            ),
            message="a prefix of spec.prefixes is larger than a pool can be: give /12 or smaller, IPv6 /32 or smaller",
            field_path=".prefixes",
        ),
        schema.Rule(
            rule=(
                "self.prefixes.all(p, !isCIDR(p) || "
                "cidr(p).prefixLength() <= (cidr(p).ip().family() == 4 ? self.blockSize.ipv4 : self.blockSize.ipv6))"
            ),
            message=(
                "a prefix of spec.prefixes is smaller than a host's block: give a larger prefix, "
                "or smaller blocks by spec.blockSize"
            ),
            field_path=".prefixes",
        ),
        schema.Rule(
            rule=(
                "self.prefixes.all(p, !isCIDR(p) || "
                "self.prefixes.exists_one(q, isCIDR(q) && (cidr(q).containsCIDR(cidr(p)) || cidr(p).containsCIDR(q))))"
            ),
            message="two of spec.prefixes overlap: give each address once",
            field_path=".prefixes",
        ),
        schema.Rule(
            rule=(
                f"self.prefixes.all(p, !isCIDR(p) || {list(_NOT_ROUTED)}"
                ".all(q, !cidr(q).containsCIDR(cidr(p)) && !cidr(p).containsCIDR(cidr(q))))"
            ),
            message=(
                "a prefix of spec.prefixes has addresses that no guest can have: "
                f"{', '.join(_NOT_ROUTED)} are for other uses"
            ),
            field_path=".prefixes",
        ),
        schema.Rule(
            rule="oldSelf.prefixes.all(p, p in self.prefixes)",
            message="a prefix can't be taken from a pool, its addresses may be in use: add another prefix instead",
            field_path=".prefixes",
            reason="FieldValueForbidden",
        ),
        schema.Rule(
            rule="self.blockSize == oldSelf.blockSize",
            message="spec.blockSize can't change, hosts have blocks of this size: make another pool",
            field_path=".blockSize",
            reason="FieldValueForbidden",
        ),
    )


class IPPoolStatus(schema.Observed):
    """Whether guests can have its addresses."""

    observed_generation: int = -1
    """The generation of the spec that this status was concluded from; -1 before the first time."""

    capacity: int = 0
    """How many addresses guests can have of the pool; of IPv6 no more are told than 9007199254740991."""

    conditions: Conditions = ()
    """Ready: no other pool overlaps. Stalled: somebody must act."""


IP_POOL = schema.Resource(
    kind=schema.Kind(
        kind="IPPool",
        plural="ippools",
        scope="Cluster",
        categories=("corral",),
        columns=(
            schema.Column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
            schema.Column("Prefixes", ".spec.prefixes"),
            schema.Column("Capacity", ".status.capacity", "integer"),
            schema.Column("Age", ".metadata.creationTimestamp", "date"),
            schema.Column("Reason", '.status.conditions[?(@.type=="Ready")].reason', priority=1),
        ),
    ),
    spec=IPPoolSpec,
    status=IPPoolStatus,
    description="Prefixes that the cloud's operator gives to guests.",
)


class IPBlockSpec(schema.Model):
    """Which host gives the addresses of the block to its guests, and announces them as one route."""

    prefix: schema.Prefix
    """The block's prefix; the object's name says it too, so that the API server makes it unique."""

    pool_ref: PoolRef
    """The pool that it is of."""

    host: schema.Name
    """The Host that has it."""

    rules: ClassVar[tuple[schema.Rule, ...]] = (
        schema.Rule(
            rule="isCIDR(self.prefix) && cidr(self.prefix) == cidr(self.prefix).masked()",
            message="spec.prefix is a prefix without host bits such as 10.77.0.0/26",
            field_path=".prefix",
        ),
        schema.Rule(
            rule=(
                "!isCIDR(self.prefix) || "
                "cidr(self.prefix).prefixLength() >= (cidr(self.prefix).ip().family() == 4 ? 20 : 112)"
            ),
            message="spec.prefix is larger than a block can be: give /20 or smaller, IPv6 /112 or smaller",
            field_path=".prefix",
        ),
        schema.Rule(
            rule="self == oldSelf",
            message="a block never changes hands: it is deleted, and made anew",
            reason="FieldValueForbidden",
        ),
    )


IP_BLOCK = schema.Resource(
    kind=schema.Kind(
        kind="IPBlock",
        plural="ipblocks",
        scope="Cluster",
        categories=("corral",),
        columns=(
            schema.Column("Prefix", ".spec.prefix"),
            schema.Column("Host", ".spec.host"),
            schema.Column("Pool", ".spec.poolRef.name"),
            schema.Column("Age", ".metadata.creationTimestamp", "date"),
        ),
        selectable=(".spec.host",),
        has_status=False,
    ),
    spec=IPBlockSpec,
    status=None,
    description="A part of an IPPool that one host gives to its guests. Corral writes these, and removes empty ones.",
)


class IPAllocationSpec(schema.Model):
    """Who has the address."""

    address: schema.Address
    """The address; the object's name says it too, so that the API server makes it unique."""

    pool_ref: PoolRef
    """The pool that it is of."""

    network_ref: NetworkRef
    """The network that it is on."""

    owner: Owner
    """The VirtualMachine that has it."""

    interface: schema.Name
    """The interface of the VirtualMachine that has it."""

    rules: ClassVar[tuple[schema.Rule, ...]] = (
        schema.Rule(
            rule="isIP(self.address)",
            message="spec.address is an IP address such as 10.77.0.5",
            field_path=".address",
        ),
        schema.Rule(
            rule="self == oldSelf",
            message="an allocation never changes hands: it is deleted, and made anew",
            reason="FieldValueForbidden",
        ),
    )


IP_ALLOCATION = schema.Resource(
    kind=schema.Kind(
        kind="IPAllocation",
        plural="ipallocations",
        scope="Cluster",
        categories=("corral",),
        columns=(
            schema.Column("Address", ".spec.address"),
            schema.Column("Pool", ".spec.poolRef.name"),
            schema.Column("Namespace", ".spec.owner.namespace"),
            schema.Column("VM", ".spec.owner.name"),
            schema.Column("Age", ".metadata.creationTimestamp", "date"),
        ),
        selectable=(".spec.owner.uid",),
        has_status=False,
    ),
    spec=IPAllocationSpec,
    status=None,
    description="One address and who has it. Corral writes these; the ledger has one object an address.",
)
