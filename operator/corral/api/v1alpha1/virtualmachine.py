"""VirtualMachine: the guest that a tenant wants."""

from __future__ import annotations

import ipaddress
from typing import Annotated, ClassVar, Literal

import pydantic

from corral.api import schema
from corral.api.v1alpha1.conditions import Conditions
from corral.api.v1alpha1.placement import PlacementRules
from corral.api.v1alpha1.references import MAP_BY_NAME, ClassRef, ImageRef, NetworkRef

CPUs = Annotated[int, pydantic.Field(ge=1, le=256)]
RunStrategy = Literal["Always", "Halted"]
Firmware = Literal["BIOS", "UEFI"]
SecretKey = Annotated[str, pydantic.Field(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")]

SMALLEST_MEMORY = "32Mi"
LARGEST_MEMORY = "64Ti"
LARGEST_DISK = "1Pi"

_ONE_SIZE = schema.Rule(
    rule="has(self.classRef) ? !has(self.cpu) && !has(self.memory) : has(self.cpu) && has(self.memory)",
    message="give either spec.classRef, or spec.cpu and spec.memory together, not both",
)
_MEMORY = schema.Rule(
    rule=f"!has(self.memory) || quantity(string(self.memory)).compareTo(quantity('{SMALLEST_MEMORY}')) >= 0",
    message=f"spec.memory is too small for any guest: give at least {SMALLEST_MEMORY}, such as 512Mi",
    field_path=".memory",
)
_LESS_MEMORY = schema.Rule(
    rule=f"!has(self.memory) || quantity(string(self.memory)).compareTo(quantity('{LARGEST_MEMORY}')) <= 0",
    message=f"spec.memory is at most {LARGEST_MEMORY}: give less, such as 4Gi",
    field_path=".memory",
)
_ONE_ROOT = schema.Rule(
    rule="has(self.imageRef) ? !self.disks.exists(d, d.root) : self.disks.exists_one(d, d.root)",
    message="there is exactly one root disk: give spec.imageRef, or root: true on one of spec.disks, not both",
)
_ROOT_DISK = schema.Rule(
    rule="has(self.imageRef) || !has(self.rootDisk)",
    message="spec.rootDisk sizes the disk that spec.imageRef makes: give spec.imageRef, or remove spec.rootDisk",
    field_path=".rootDisk",
)
_NAMED_ROOT = schema.Rule(
    rule="!has(self.imageRef) || !self.disks.exists(d, d.name == 'root')",
    message="the disk that spec.imageRef makes is named root: give the one in spec.disks another name",
    field_path=".disks",
)
_IMAGE_STAYS = schema.Rule(
    rule="has(self.imageRef) == has(oldSelf.imageRef) && (!has(self.imageRef) || self.imageRef == oldSelf.imageRef)",
    message="spec.imageRef can't change under a disk that was made from it: make a new VirtualMachine",
    reason="FieldValueForbidden",
)
_NETWORKS_STAY = schema.Rule(
    rule="self.networks == oldSelf.networks",
    message="spec.networks can't change yet: make a new VirtualMachine",
    reason="FieldValueForbidden",
)
_ADDRESSES_ONCE = schema.Rule(
    rule=(
        "self.networks.all(n, !has(n.addresses) || n.addresses.all(a, "
        "self.networks.exists_one(m, has(m.addresses) && a in m.addresses)))"
    ),
    message="two of spec.networks ask for the same address: give each address once",
    field_path=".networks",
)
_ROOT_DISK_STAYS = schema.Rule(
    rule="!has(oldSelf.rootDisk) || has(self.rootDisk)",
    message="a disk never shrinks: leave spec.rootDisk as it is, or give more",
    field_path=".rootDisk",
    reason="FieldValueForbidden",
)
_SIZE = (
    schema.Rule(
        rule="quantity(string(self.size)).isGreaterThan(quantity('0'))",
        message="a disk's size is more than 0, such as 10Gi",
        field_path=".size",
    ),
    # Hosts count bytes in 64 bits.
    schema.Rule(
        rule=f"quantity(string(self.size)).compareTo(quantity('{LARGEST_DISK}')) <= 0",
        message=f"a disk's size is at most {LARGEST_DISK}: give less, such as 10Gi",
        field_path=".size",
    ),
    schema.Rule(
        rule="quantity(string(self.size)).compareTo(quantity(string(oldSelf.size))) >= 0",
        message="a disk never shrinks: leave its size as it is, or give more",
        field_path=".size",
        reason="FieldValueForbidden",
    ),
)


class RootDisk(schema.Model):
    """The disk that is made from spec.imageRef; it lives and dies with the VirtualMachine."""

    size: schema.Quantity
    """How large the guest sees it, such as 10Gi; never smaller than its image, and it only ever grows."""

    rules: ClassVar[tuple[schema.Rule, ...]] = _SIZE


class Disk(schema.Model):
    """One more disk that lives and dies with the VirtualMachine."""

    name: schema.DiskName
    """Name of the disk, unique in this VirtualMachine; the guest sees it as the disk's serial."""

    size: schema.Quantity
    """How large the guest sees it, such as 10Gi; it only ever grows."""

    root: bool = False
    """Whether the guest boots from it; needs imageRef."""

    image_ref: ImageRef | None = None
    """The image that it starts as a copy of; blank without."""

    rules: ClassVar[tuple[schema.Rule, ...]] = (
        *_SIZE,
        schema.Rule(
            rule="!self.root || has(self.imageRef)",
            message="a blank disk can't be booted from: give the root disk an imageRef",
            reason="FieldValueRequired",
        ),
        schema.Rule(
            rule=(
                "has(self.imageRef) == has(oldSelf.imageRef) && "
                "(!has(self.imageRef) || self.imageRef == oldSelf.imageRef)"
            ),
            message="a disk's imageRef can't change, the disk was made from it: give a disk of another name",
            reason="FieldValueForbidden",
        ),
    )


class NetworkInterface(schema.Model):
    """One NIC of the guest."""

    name: schema.InterfaceName = "eth0"
    """Name of the interface, unique in this VirtualMachine; the guest's seed calls it so."""

    network_ref: NetworkRef
    """The network that its addresses come from."""

    addresses: Annotated[tuple[schema.Address, ...], pydantic.Field(max_length=2)] = ()
    """The addresses that it shall have, one a family at most: each of a pool of its network, and free. A family that is
    not named here gets any free address."""

    rules: ClassVar[tuple[schema.Rule, ...]] = (
        schema.Rule(
            rule="!has(self.name) || self.name != 'lo'",
            message="lo is the guest's own loopback: give the interface another name, such as eth0",
            field_path=".name",
        ),
        schema.Rule(
            rule="!has(self.addresses) || self.addresses.all(a, isIP(a) && ip.isCanonical(a))",
            message="addresses are IP addresses as they are shown, such as 10.77.0.5 or fd77::5",
            field_path=".addresses",
        ),
        schema.Rule(
            rule=(
                "!has(self.addresses) || self.addresses.all(a, !isIP(a) || "
                "self.addresses.exists_one(b, isIP(b) && ip(b).family() == ip(a).family()))"
            ),
            message="an interface has one address a family: give at most one IPv4 and one IPv6 address",
            field_path=".addresses",
        ),
    )


class UserDataSecretRef(schema.Model):
    """One key of a Secret of the same namespace, read once, before the guest is made: a later change reaches none."""

    name: schema.ObjectName
    """Name of the Secret."""

    key: SecretKey = "userData"
    """The key of the Secret whose value is the user data: UTF-8 text of at most 64 KiB."""


class CloudInit(schema.Model):
    """What the guest's cloud-init is given at its first boot."""

    user_data: Annotated[str, pydantic.Field(max_length=32768)] = ""
    """User data as cloud-init reads it, such as a text that starts with #cloud-config. Not for secrets."""

    user_data_secret_ref: UserDataSecretRef | None = None
    """The Secret that has the user data, instead of userData."""

    rules: ClassVar[tuple[schema.Rule, ...]] = (
        schema.Rule(
            rule="!has(self.userDataSecretRef) || !has(self.userData) || self.userData == ''",
            message="give either spec.cloudInit.userData or spec.cloudInit.userDataSecretRef, not both",
        ),
    )


class VirtualMachineSpec(schema.Model):
    """What guest is wanted. A host with room for it runs it; it keeps its addresses, and is put back when it fails."""

    class_ref: ClassRef | None = None
    """The VirtualMachineClass that says how many CPUs and how much memory; instead of cpu and memory."""

    cpu: CPUs | None = None
    """How many virtual CPUs, with memory and instead of classRef."""

    memory: schema.Quantity | None = None
    """How much memory, such as 512Mi or 4Gi, with cpu and instead of classRef."""

    image_ref: ImageRef | None = None
    """The image that the root disk starts as a copy of."""

    root_disk: RootDisk | None = None
    """The root disk that imageRef makes; without, it is as large as its image says."""

    disks: Annotated[tuple[Disk, ...], pydantic.Field(max_length=8, json_schema_extra=MAP_BY_NAME)] = ()
    """Further disks."""

    networks: Annotated[
        tuple[NetworkInterface, ...], pydantic.Field(min_length=1, max_length=8, json_schema_extra=MAP_BY_NAME)
    ] = (NetworkInterface(network_ref=NetworkRef(name="default")),)
    """The networks that the guest is on, an interface each; the first one has the default route."""

    cloud_init: CloudInit | None = None
    """What the guest's cloud-init is given at its first boot."""

    ssh_authorized_keys: Annotated[tuple[schema.SshKey, ...], pydantic.Field(max_length=32)] = ()
    """Public SSH keys for the image's default user."""

    placement: PlacementRules | None = None
    """Which hosts the guest may be on. A change moves no guest: it counts when the guest is placed anew, and a guest
    keeps its host, also while it is halted."""

    run_strategy: RunStrategy = "Always"
    """Always: the guest runs, and is started again when it stops. Halted: it is off, and keeps disks and addresses."""

    termination_grace_period_seconds: Annotated[int, pydantic.Field(ge=0, le=3600)] = 30
    """How long a guest may take to shut down when it is halted or deleted, before it is powered off."""

    rules: ClassVar[tuple[schema.Rule, ...]] = (
        _ONE_SIZE,
        _MEMORY,
        _LESS_MEMORY,
        _ONE_ROOT,
        _ROOT_DISK,
        _NAMED_ROOT,
        _ROOT_DISK_STAYS,
        _IMAGE_STAYS,
        _NETWORKS_STAY,
        _ADDRESSES_ONCE,
    )


def _is_ip(value: str) -> str:
    ipaddress.ip_address(value)
    return value


class PlacedAddress(schema.Observed):
    """One address of the guest."""

    interface: schema.Name
    """The interface in spec.networks that has it."""

    address: Annotated[schema.Address, pydantic.AfterValidator(_is_ip)]
    """The address, such as 10.77.0.5."""

    rules: ClassVar[tuple[schema.Rule, ...]] = (
        schema.Rule(rule="isIP(self.address)", message="address is an IP address such as 10.77.0.5"),
    )


class Placement(schema.Observed):
    """Where the guest is, and with which addresses: the one record that decides it, changed by compare-and-set."""

    host: schema.Name
    """The Host that runs the guest; no other does."""

    epoch: Annotated[int, pydantic.Field(ge=1)]
    """How many times the guest was placed; it names the Instance."""

    addresses: Annotated[tuple[PlacedAddress, ...], pydantic.Field(max_length=64)] = ()
    """The addresses that the guest keeps for life."""


class VirtualMachineStatus(schema.Observed):
    """What was made of the spec."""

    observed_generation: int = -1
    """The generation of the spec that this status was concluded from; -1 before the first time."""

    printable_status: Annotated[str, pydantic.Field(max_length=32)] = ""
    """The state in a word: Pending, Provisioning, Starting, Running, Stopping, Halted, Failed or Unknown."""

    placement: Placement | None = None
    """Where the guest is, and its addresses."""

    conditions: Conditions = ()
    """Ready: the spec holds. Scheduled, ImageReady, StorageReady, NetworkReady, PowerStateSynced, AgentConnected: its
    parts. RestartRequired: the guest runs with an older spec. Reconciling: work goes on. Stalled: somebody must act."""


RESOURCE = schema.Resource(
    kind=schema.Kind(
        kind="VirtualMachine",
        plural="virtualmachines",
        scope="Namespaced",
        short_names=("vm",),
        categories=("all", "corral"),
        columns=(
            schema.Column("Status", ".status.printableStatus"),
            schema.Column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
            schema.Column("Host", ".status.placement.host"),
            schema.Column("IP", ".status.placement.addresses[0].address"),
            schema.Column("Age", ".metadata.creationTimestamp", "date"),
            schema.Column("Class", ".spec.classRef.name", priority=1),
            schema.Column("Reason", '.status.conditions[?(@.type=="Ready")].reason', priority=1),
        ),
        selectable=(".status.placement.host", ".spec.runStrategy"),
        rules=(
            schema.Rule(
                rule="self.metadata.name.matches('^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$')",
                message="metadata.name is the guest's host name: at most 63 of a-z, 0-9 and '-', without dots",
            ),
        ),
    ),
    spec=VirtualMachineSpec,
    status=VirtualMachineStatus,
    description="A virtual machine: a guest with CPUs, memory, disks and addresses, kept running on one of the hosts.",
)
