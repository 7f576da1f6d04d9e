"""Image and ClusterImage: what disks start as copies of."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import pydantic

from corral.api import schema
from corral.api.v1alpha1.conditions import Conditions
from corral.api.v1alpha1.virtualmachine import LARGEST_DISK, Firmware


class Source(schema.Model):
    """A file on a web server, by what must be in it."""

    url: schema.Url
    """Where the file is: http or https. A host fetches it once, when the first guest needs it."""

    sha256: schema.Sha256
    """The SHA-256 of the file, 64 lower-case hex digits, as `sha256sum FILE` prints it."""

    rules: ClassVar[tuple[schema.Rule, ...]] = (
        schema.Rule(
            rule="isURL(self.url)",
            message="url is no URL: give one such as https://images.example/debian.qcow2",
            field_path=".url",
        ),
        schema.Rule(
            rule="!self.url.matches('^https?://[^/?#]*@')",
            message="url has a user or a password, which all would read who see the image: give one that needs none",
            field_path=".url",
        ),
    )


class DirectBoot(schema.Model):
    """A kernel that the hypervisor starts itself, for images without a boot loader."""

    kernel: Source
    """The kernel."""

    initramfs: Source
    """The initial RAM file system."""

    command_line: schema.CommandLine = ""
    """The kernel's command line."""


class ImageSpec(schema.Model):
    """Where the image is and how a guest boots from it. An image never changes: another file is another Image."""

    source: Source
    """The disk image."""

    format: Literal["qcow2", "raw"]
    """The disk image's format; it is never guessed."""

    default_size: schema.Quantity | None = None
    """How large a disk is made from it unless it says otherwise; without, as large as the image itself."""

    direct_boot: DirectBoot | None = None
    """The kernel to start, where the image has no boot loader."""

    firmware: Firmware = "BIOS"
    """What the image's boot loader is started by: BIOS or UEFI. A VirtualMachineClass may say otherwise."""

    rules: ClassVar[tuple[schema.Rule, ...]] = (
        schema.Rule(
            rule="self == oldSelf",
            message="an image's spec can't change under the disks that were made from it: apply it under another name",
            reason="FieldValueForbidden",
        ),
        schema.Rule(
            rule=(
                "!has(self.defaultSize) || "
                f"quantity(string(self.defaultSize)).compareTo(quantity('{LARGEST_DISK}')) <= 0"
            ),
            message=f"spec.defaultSize is at most {LARGEST_DISK}: give less, such as 10Gi",
            field_path=".defaultSize",
        ),
        schema.Rule(
            rule="!has(self.defaultSize) || quantity(string(self.defaultSize)).isGreaterThan(quantity('0'))",
            message="spec.defaultSize is more than 0, such as 10Gi; leave it out for the image's own size",
            field_path=".defaultSize",
        ),
        schema.Rule(
            rule="!has(self.directBoot) || !has(self.firmware) || self.firmware == 'BIOS'",
            message="spec.directBoot needs no firmware: remove spec.firmware, or give an image with a boot loader",
            field_path=".firmware",
        ),
    )


class ImageStatus(schema.Observed):
    """What the hosts found."""

    observed_generation: int = -1
    """The generation of the spec that this status was concluded from; -1 before the first time."""

    hosts: Annotated[tuple[schema.Name, ...], pydantic.Field(max_length=2048)] = ()
    """The hosts that hold the image."""

    conditions: Conditions = ()
    """Ready: no host failed to fetch it. Stalled: somebody must act."""


_COLUMNS = (
    schema.Column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
    schema.Column("Format", ".spec.format"),
    schema.Column("Age", ".metadata.creationTimestamp", "date"),
    schema.Column("Reason", '.status.conditions[?(@.type=="Ready")].reason', priority=1),
    schema.Column("URL", ".spec.source.url", priority=1),
)

IMAGE = schema.Resource(
    kind=schema.Kind(
        kind="Image",
        plural="images",
        scope="Namespaced",
        categories=("corral",),
        columns=_COLUMNS,
    ),
    spec=ImageSpec,
    status=ImageStatus,
    description="A disk image of one namespace: where it is fetched from, and its sum.",
)

CLUSTER_IMAGE = schema.Resource(
    kind=schema.Kind(
        kind="ClusterImage",
        plural="clusterimages",
        scope="Cluster",
        categories=("corral",),
        columns=_COLUMNS,
    ),
    spec=ImageSpec,
    status=ImageStatus,
    description="A disk image that every namespace may use: where it is fetched from, and its sum.",
)
