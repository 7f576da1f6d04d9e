"""Network and ClusterNetwork: what a guest's interface is on."""

from __future__ import annotations

from typing import Annotated, ClassVar

import pydantic

from corral.api import schema
from corral.api.v1alpha1.conditions import Conditions
from corral.api.v1alpha1.references import PoolRefs


class NetworkSpec(schema.Model):
    """Where the addresses come from, and what guests are told beside."""

    pool_refs: PoolRefs
    """The IPPools that guests' addresses come from. A network names no prefix of its own."""

    mtu: Annotated[int, pydantic.Field(ge=1280, le=9216)] = 1500
    """The largest packet in bytes, at both ends of a guest's interface."""

    dns_servers: Annotated[tuple[schema.Address, ...], pydantic.Field(max_length=8)] = ()
    """DNS servers, by address."""

    search_domains: Annotated[tuple[schema.ObjectName, ...], pydantic.Field(max_length=8)] = ()
    """Domains in which guests look up short names."""

    nat: bool = False
    """Whether guests are seen outside the cloud by an address of their host, which must speak BGP: for addresses that
    nobody outside has a route to. Within the cloud's own pools guests keep theirs."""

    rules: ClassVar[tuple[schema.Rule, ...]] = (
        schema.Rule(
            rule="self.dnsServers.all(server, isIP(server))",
            message="spec.dnsServers are IP addresses such as 10.77.0.53",
            field_path=".dnsServers",
        ),
    )


class NetworkStatus(schema.Observed):
    """Whether guests can be on it."""

    observed_generation: int = -1
    """The generation of the spec that this status was concluded from; -1 before the first time."""

    conditions: Conditions = ()
    """Ready: its pools are there. Stalled: somebody must act."""


_COLUMNS = (
    schema.Column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
    schema.Column("Pool", ".spec.poolRefs[*].name"),
    schema.Column("MTU", ".spec.mtu", "integer"),
    schema.Column("Age", ".metadata.creationTimestamp", "date"),
    schema.Column("Reason", '.status.conditions[?(@.type=="Ready")].reason', priority=1),
)

NETWORK = schema.Resource(
    kind=schema.Kind(
        kind="Network",
        plural="networks",
        scope="Namespaced",
        short_names=("net",),
        categories=("corral",),
        columns=_COLUMNS,
    ),
    spec=NetworkSpec,
    status=NetworkStatus,
    description="A network of one namespace: guests on it get addresses from its pools.",
)

CLUSTER_NETWORK = schema.Resource(
    kind=schema.Kind(
        kind="ClusterNetwork",
        plural="clusternetworks",
        scope="Cluster",
        short_names=("cnet",),
        categories=("corral",),
        columns=_COLUMNS,
    ),
    spec=NetworkSpec,
    status=NetworkStatus,
    description="A network that every namespace may use: guests on it get addresses from its pools.",
)
