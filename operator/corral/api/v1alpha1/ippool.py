"""IPPool and IPAllocation: the prefixes that an operator gives, and the ledger of what is taken of them."""

from __future__ import annotations

from typing import Annotated, ClassVar

import pydantic

from corral.api import schema
from corral.api.v1alpha1.conditions import Conditions
from corral.api.v1alpha1.references import NetworkRef, Owner, PoolRef

_NOT_ROUTED = ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3")
"""This host, loopback, link-local (where every guest's gateway is), multicast and reserved (RFC 6890)."""


class IPPoolSpec(schema.Model):
    """Which addresses guests may have."""

    prefixes: Annotated[tuple[schema.Prefix, ...], pydantic.Field(min_length=1, max_length=16)]
    """IPv4 prefixes such as 10.77.0.0/24; guests get all of their addresses but the first and the last of each. No two
    pools overlap."""

    rules: ClassVar[tuple[schema.Rule, ...]] = (
        schema.Rule(
            rule="self.prefixes.all(p, isCIDR(p) && cidr(p).ip().family() == 4)",
            message="spec.prefixes are IPv4 prefixes such as 10.77.0.0/24",
            field_path=".prefixes",
        ),
        schema.Rule(
            rule="self.prefixes.all(p, !isCIDR(p) || cidr(p) == cidr(p).masked())",
            message="a prefix of spec.prefixes has host bits set: write 10.77.0.0/24, not 10.77.0.5/24",
            field_path=".prefixes",
        ),
        schema.Rule(
            rule="self.prefixes.all(p, !isCIDR(p) || cidr(p).prefixLength() >= 12)",
            message="a prefix of spec.prefixes is larger than a pool can be: give /12 or smaller",
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
    )


class IPPoolStatus(schema.Observed):
    """Whether guests can have its addresses."""

    observed_generation: int = -1
    """The generation of the spec that this status was concluded from; -1 before the first time."""

    capacity: int = 0
    """How many addresses the pool has."""

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
