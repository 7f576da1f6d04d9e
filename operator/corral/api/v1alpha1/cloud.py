"""Cloud: the one object for what holds fleet-wide, and for the health of everything in a line."""

from __future__ import annotations

from typing import Annotated

import pydantic

from corral.api import schema
from corral.api.v1alpha1.conditions import Conditions

NAME = "cloud"
"""The one name that a Cloud has."""


class DeletionGuard(schema.Model):
    """When removals look like an accident: past both limits within the window, nothing more is removed."""

    share_percent: Annotated[int, pydantic.Field(ge=1, le=100)] = 20
    """The share of all VirtualMachines, in percent, that may go within the window."""

    floor: Annotated[int, pydantic.Field(ge=1, le=1_000_000)] = 50
    """How many may go within the window whatever the share."""

    window_seconds: Annotated[int, pydantic.Field(ge=10, le=86400)] = 600
    """The window, in seconds."""

    release: Annotated[str, pydantic.Field(max_length=64)] = ""
    """A person's word to go on: the value of status.heldSince lets the removals pass that are held since then."""


class CloudSpec(schema.Model):
    """What holds fleet-wide."""

    deletion_guard: DeletionGuard = DeletionGuard()
    """The guard against mass deletion."""


class CloudStatus(schema.Observed):
    """How the cloud is."""

    observed_generation: int = -1
    """The generation of the spec that this status was concluded from; -1 before the first time."""

    printable_status: Annotated[str, pydantic.Field(max_length=128)] = ""
    """The health of everything in a line."""

    held_since: schema.Time | None = None
    """Since when removals are held; absent when none are."""

    held_removals: int = 0
    """How many removals wait for a person."""

    orphans: Annotated[int, pydantic.Field(ge=0)] = 0
    """How many VirtualMachines there are of which something is on a host, and no Instance says so."""

    conditions: Conditions = ()
    """Ready: the controller works and holds nothing back. Stalled: somebody must act."""


RESOURCE = schema.Resource(
    kind=schema.Kind(
        kind="Cloud",
        plural="clouds",
        scope="Cluster",
        categories=("corral",),
        columns=(
            schema.Column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
            schema.Column("Status", ".status.printableStatus"),
            schema.Column("Held", ".status.heldRemovals", "integer"),
            schema.Column("Orphans", ".status.orphans", "integer", priority=1),
            schema.Column("Age", ".metadata.creationTimestamp", "date"),
            schema.Column("Reason", '.status.conditions[?(@.type=="Ready")].reason', priority=1),
        ),
        rules=(
            schema.Rule(rule=f"self.metadata.name == '{NAME}'", message=f"there is one Cloud, and its name is {NAME}"),
        ),
    ),
    spec=CloudSpec,
    status=CloudStatus,
    description="The cloud itself: one object, named cloud, for what holds fleet-wide.",
)
