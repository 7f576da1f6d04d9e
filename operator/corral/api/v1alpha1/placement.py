"""Placement: which hosts a tenant wants a guest on, by their labels and by who else is there."""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic

from corral.api import schema
from corral.api.v1alpha1.selectors import LabelSelector

HOST = "corral.dev/host"
"""Label of every Host with its own name, which needs not be written."""

ZONE = "topology.kubernetes.io/zone"
"""Label of a Host that says which zone it is in."""

TopologyKey = Literal["corral.dev/host", "topology.kubernetes.io/zone"]
Weight = Annotated[int, pydantic.Field(ge=1, le=100)]


class AffinityTerm(schema.Model):
    """Other VirtualMachines of the same namespace, and how near is near."""

    label_selector: LabelSelector
    """The VirtualMachines that are meant, by their labels."""

    topology_key: TopologyKey
    """corral.dev/host: on the same host. topology.kubernetes.io/zone: on a host of the same zone."""


class WeightedAffinityTerm(schema.Model):
    """A wish: other VirtualMachines of the same namespace, how near is near, and how much it matters."""

    weight: Weight = 1
    """How much each VirtualMachine that is meant matters, beside other wishes."""

    label_selector: LabelSelector
    """The VirtualMachines that are meant, by their labels."""

    topology_key: TopologyKey
    """corral.dev/host: on the same host. topology.kubernetes.io/zone: on a host of the same zone."""


class Affinity(schema.Model):
    """Which VirtualMachines of the same namespace count, when a host is chosen and not later."""

    required: Annotated[tuple[AffinityTerm, ...], pydantic.Field(max_length=8)] = ()
    """What must hold of the host, all of it."""

    preferred: Annotated[tuple[WeightedAffinityTerm, ...], pydantic.Field(max_length=8)] = ()
    """What is wished of the host: of those that it can be, the one with the most of it is taken."""


class TopologySpreadConstraint(schema.Model):
    """How evenly VirtualMachines of the same namespace are spread."""

    max_skew: Annotated[int, pydantic.Field(ge=1, le=1000)] = 1
    """By how many a zone or host may have more than the one with the fewest. Those count that hostSelector selects."""

    topology_key: TopologyKey
    """topology.kubernetes.io/zone: over zones; no host without one is taken. corral.dev/host: over hosts."""

    when_unsatisfiable: Literal["DoNotSchedule", "ScheduleAnyway"] = "DoNotSchedule"
    """DoNotSchedule: the guest waits rather than break it. ScheduleAnyway: of the hosts that it can be on, one where
    there are the fewest is taken."""

    label_selector: LabelSelector
    """The VirtualMachines that are counted, by their labels."""


class PlacementRules(schema.Model):
    """Which hosts the guest may be on. It is read when a host is chosen, and its guest stays where it is."""

    host_selector: LabelSelector | None = None
    """The hosts that it may be on, by the labels of Host; corral.dev/host is the Host's name."""

    affinity: Affinity | None = None
    """VirtualMachines of this namespace that it is to be near to. One that its own labels are meant by may be the
    first."""

    anti_affinity: Affinity | None = None
    """VirtualMachines of this namespace that it is to be far from. Those that require to be far from it are, too."""

    topology_spread_constraints: Annotated[
        tuple[TopologySpreadConstraint, ...],
        pydantic.Field(
            max_length=4,
            json_schema_extra={
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["topologyKey", "whenUnsatisfiable"],
            },
        ),
    ] = ()
    """How VirtualMachines of this namespace are spread over zones or hosts."""
