"""VirtualMachineClass: a size that an operator offers."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import pydantic

from corral.api import schema
from corral.api.v1alpha1.virtualmachine import LARGEST_MEMORY, SMALLEST_MEMORY, CPUs, Firmware


class Overcommit(schema.Model):
    """How much more is promised to guests than their hosts have. It is counted when a host is chosen; no guest sees it.

    CPU is shared, and whoever gets less of it is slower: most guests idle most of the time, and KubeVirt promises ten
    virtual CPUs a CPU. Memory is not shared: who needs what is not there is killed.
    """

    cpu: Annotated[int, pydantic.Field(ge=1, le=256)] = 8
    """How many virtual CPUs share a CPU of the host."""

    memory_percent: Annotated[int, pydantic.Field(ge=100, le=400)] = 100
    """How much memory guests are promised, in percent of what the host keeps for them. Above 100 guests may be killed
    for want of it."""


USUAL = Overcommit()
"""What holds where nobody says otherwise."""


class VirtualMachineClassSpec(schema.Model):
    """How large the guests of this class are, and how they are built."""

    cpu: CPUs
    """How many virtual CPUs."""

    memory: schema.Quantity
    """How much memory, such as 512Mi or 4Gi."""

    overcommit: Overcommit = USUAL
    """How much more is promised to guests of this class than their hosts have."""

    machine_type: Literal["pc"] = "pc"
    """The machine that the guest sees; the version that a guest first starts with stays with it for life."""

    firmware: Firmware | None = None
    """What starts the guest's boot loader: BIOS or UEFI, whatever its image says; for life, from when it is made."""

    rules: ClassVar[tuple[schema.Rule, ...]] = (
        schema.Rule(
            rule=f"quantity(string(self.memory)).compareTo(quantity('{SMALLEST_MEMORY}')) >= 0",
            message=f"spec.memory is too small for any guest: give at least {SMALLEST_MEMORY}, such as 512Mi",
            field_path=".memory",
        ),
        schema.Rule(
            rule=f"quantity(string(self.memory)).compareTo(quantity('{LARGEST_MEMORY}')) <= 0",
            message=f"spec.memory is at most {LARGEST_MEMORY}: give less, such as 4Gi",
            field_path=".memory",
        ),
    )


RESOURCE = schema.Resource(
    kind=schema.Kind(
        kind="VirtualMachineClass",
        plural="virtualmachineclasses",
        scope="Cluster",
        short_names=("vmclass",),
        categories=("corral",),
        columns=(
            schema.Column("CPU", ".spec.cpu", "integer"),
            schema.Column("Memory", ".spec.memory"),
            schema.Column("Age", ".metadata.creationTimestamp", "date"),
        ),
        has_status=False,
    ),
    spec=VirtualMachineClassSpec,
    status=None,
    description="A size of virtual machine that the cloud's operator offers, by name.",
)
