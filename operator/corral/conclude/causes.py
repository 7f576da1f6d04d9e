"""Causes into reasons: one exhaustive map from what a driver says to what a person reads.

The agent asks it for every driver's error, and nobody else translates one. A cause that is not in the map is a defect,
which a test finds before anybody else can.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

from corral_drivers import errors
from corral_drivers.bgp import model as bgp
from corral_drivers.dhcp import model as dhcp
from corral_drivers.firewall import model as firewall
from corral_drivers.hypervisor import model as hypervisor
from corral_drivers.image import model as image
from corral_drivers.link import model as link
from corral_drivers.routing import model as routing
from corral_drivers.seed import model as seed
from corral_drivers.storage import model as storage

REASONS: Mapping[type[enum.StrEnum], Mapping[str, str]] = {
    image.Cause: {
        image.Cause.UNREACHABLE: "ImageUnreachable",
        image.Cause.NOT_FOUND: "ImageMissingAtSource",
        image.Cause.CHECKSUM_MISMATCH: "ImageChecksumMismatch",
        image.Cause.NOT_AN_IMAGE: "ImageNotAnImage",
        image.Cause.TOO_LARGE: "ImageTooLarge",
        image.Cause.NO_SPACE: "HostDiskFull",
        image.Cause.FETCHING: "ImageFetching",
        image.Cause.FAILED: "ImageFailed",
    },
    storage.Cause: {
        storage.Cause.NO_SPACE: "HostDiskFull",
        storage.Cause.SMALLER_THAN_IMAGE: "DiskSmallerThanImage",
        storage.Cause.SHRINK_REFUSED: "DiskShrinkRefused",
        # The disk is asked for only once its image is held: an image that is missing then is no ordinary wait.
        storage.Cause.IMAGE_MISSING: "StorageFailed",
        storage.Cause.DISK_MISSING: "DiskMissing",
        storage.Cause.POOL_FOREIGN: "PoolForeign",
        storage.Cause.FAILED: "StorageFailed",
    },
    seed.Cause: {
        seed.Cause.NO_SPACE: "HostDiskFull",
        seed.Cause.FAILED: "SeedFailed",
    },
    link.Cause: {
        link.Cause.NAME_TAKEN: "NameTaken",
        link.Cause.UNSUPPORTED: "HostUnsupported",
        link.Cause.FAILED: "LinkFailed",
    },
    routing.Cause: {
        routing.Cause.INTERFACE_MISSING: "RoutingFailed",
        routing.Cause.PREFIX_TAKEN: "PrefixTaken",
        routing.Cause.FAILED: "RoutingFailed",
    },
    bgp.Cause: {
        bgp.Cause.NOT_RUNNING: "FrrUnavailable",
        bgp.Cause.NOT_ANSWERING: "FrrUnavailable",
        bgp.Cause.FOREIGN: "FrrForeign",
        bgp.Cause.UNSUPPORTED: "FrrUnsupported",
        bgp.Cause.INVALID: "FrrRefuses",
        bgp.Cause.FAILED: "FrrRefuses",
    },
    firewall.Cause: {
        firewall.Cause.UNSUPPORTED: "HostUnsupported",
        firewall.Cause.REFUSED: "FirewallFailed",
        firewall.Cause.FAILED: "FirewallFailed",
    },
    dhcp.Cause: {
        dhcp.Cause.INTERFACE_TAKEN: "NameTaken",
        dhcp.Cause.UNSUPPORTED: "HostUnsupported",
        dhcp.Cause.NO_SPACE: "HostDiskFull",
        dhcp.Cause.FAILED: "DhcpFailed",
    },
    hypervisor.Cause: {
        hypervisor.Cause.CONNECTION_LOST: "HypervisorUnavailable",
        hypervisor.Cause.NO_MEMORY: "HostOutOfMemory",
        hypervisor.Cause.DEVICE_MISSING: "HypervisorFailed",
        hypervisor.Cause.DEVICE_BUSY: "DeviceBusy",
        hypervisor.Cause.UNSUPPORTED: "HostUnsupported",
        hypervisor.Cause.NAME_TAKEN: "NameTaken",
        hypervisor.Cause.FAILED: "HypervisorFailed",
    },
}
"""The code of the reason, by the port whose cause it is, and by the cause: two ports use the same words."""


def reason(error: errors.DriverError) -> str:
    """The code of the reason that this error is shown as."""
    return REASONS[type(error.cause)][error.cause]
