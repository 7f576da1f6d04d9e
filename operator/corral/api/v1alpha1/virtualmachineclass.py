"""VirtualMachineClass: a size that an operator offers."""

from __future__ import annotations

from typing import ClassVar, Literal

from corral.api import schema
from corral.api.v1alpha1.virtualmachine import LARGEST_MEMORY, SMALLEST_MEMORY, CPUs, Firmware


class VirtualMachineClassSpec(schema.Model):
    """How large the guests of this class are, and how they are built."""

    cpu: CPUs
    """How many virtual CPUs."""

    memory: schema.Quantity
    """How much memory, such as 512Mi or 4Gi."""

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
