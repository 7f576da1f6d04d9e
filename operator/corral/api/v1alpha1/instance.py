"""Instance: one guest on one host, fully resolved, so that its agent needs no other object."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import pydantic

from corral.api import schema
from corral.api.v1alpha1.conditions import Conditions
from corral.api.v1alpha1.references import MAP_BY_NAME, Owner
from corral.api.v1alpha1.virtualmachine import CPUs, Firmware, RunStrategy
from corral.api.v1alpha1.virtualmachineclass import USUAL, Overcommit

FINALIZER = "corral.dev/instance"
"""Held by the agent's word: it goes when nothing of the guest is left on the host."""

Slot = Annotated[int, pydantic.Field(ge=3, le=29)]
Mac = Annotated[str, pydantic.Field(min_length=17, max_length=17, pattern=r"^[0-9a-f]{2}(:[0-9a-f]{2}){5}$")]


class ImageFile(schema.Model):
    """A file to be fetched, by what must be in it."""

    url: schema.Url
    """Where it is."""

    sha256: schema.Sha256
    """Its SHA-256."""

    format: Literal["qcow2", "raw", "blob"]
    """What it must be."""


class InstanceDisk(schema.Model):
    """A disk of the guest."""

    name: schema.DiskName
    """Name within the guest."""

    size: Annotated[int, pydantic.Field(ge=0, le=2**50)]
    """How large the guest sees it, in bytes; 0 is as large as its image."""

    slot: Slot
    """PCI slot, for life."""

    image: ImageFile | None = None
    """What it starts as a copy of; blank without."""


class InstanceBoot(schema.Model):
    """A kernel that the hypervisor starts itself."""

    kernel: ImageFile
    """The kernel."""

    initramfs: ImageFile
    """The initial RAM file system."""

    command_line: schema.CommandLine = ""
    """The kernel's command line."""


class InstanceInterface(schema.Model):
    """A NIC of the guest, routed by the host."""

    name: schema.InterfaceName
    """Name within the guest."""

    mac: Mac
    """The guest's MAC address, for life."""

    slot: Slot
    """PCI slot, for life."""

    mtu: Annotated[int, pydantic.Field(ge=1280, le=9216)]
    """The largest packet in bytes."""

    addresses: Annotated[tuple[schema.Address, ...], pydantic.Field(max_length=8)]
    """The addresses that the host routes to it."""

    dns_servers: Annotated[tuple[schema.Address, ...], pydantic.Field(max_length=8)] = ()
    """DNS servers that the guest is told."""

    search_domains: Annotated[tuple[schema.ObjectName, ...], pydantic.Field(max_length=8)] = ()
    """Search domains that the guest is told."""

    nat: bool = False
    """Whether the guest is seen outside the cloud by the host's own address."""

    rules: ClassVar[tuple[schema.Rule, ...]] = (
        schema.Rule(
            rule="self.addresses.all(address, isIP(address)) && self.dnsServers.all(address, isIP(address))",
            message="addresses and dnsServers are IP addresses such as 10.77.0.5",
        ),
    )


class InstanceSeed(schema.Model):
    """What the guest is told at its first boot."""

    instance_id: Annotated[str, pydantic.Field(min_length=1, max_length=128)]
    """cloud-init's instance-id: another one sets the guest up anew."""

    hostname: schema.Name
    """The guest's host name."""

    ssh_authorized_keys: Annotated[tuple[schema.SshKey, ...], pydantic.Field(max_length=32)] = ()
    """Public SSH keys."""

    user_data: Annotated[str, pydantic.Field(max_length=32768)] = ""
    """User data, as the tenant wrote it."""

    user_data_secret: schema.ObjectName | None = None
    """The Secret of this namespace that has the user data instead, under the key userData; made with the Instance."""


class InstanceSpec(schema.Model):
    """What the host must run. Written by the controller alone."""

    owner: Owner
    """The VirtualMachine that this stands for."""

    epoch: Annotated[int, pydantic.Field(ge=1)]
    """Which placement of the VirtualMachine this is."""

    cpu: CPUs
    """Virtual CPUs."""

    memory: Annotated[int, pydantic.Field(ge=2**20, le=2**46, multiple_of=2**20)]
    """Memory in bytes, a multiple of 1 MiB."""

    overcommit: Overcommit = USUAL
    """What of cpu and memory the host is charged with; the guest has all of it."""

    machine_type: Annotated[str, pydantic.Field(min_length=1, max_length=63, pattern=r"^[0-9A-Za-z_.-]+$")]
    """The machine that the guest sees."""

    firmware: Firmware = "BIOS"
    """What starts the guest's boot loader, for life."""

    disks: Annotated[
        tuple[InstanceDisk, ...], pydantic.Field(min_length=1, max_length=9, json_schema_extra=MAP_BY_NAME)
    ]
    """Disks; the first is the root disk."""

    seed_slot: Slot
    """PCI slot of the seed, for life."""

    interfaces: Annotated[tuple[InstanceInterface, ...], pydantic.Field(max_length=8, json_schema_extra=MAP_BY_NAME)]
    """NICs; the first has the default route."""

    boot: InstanceBoot | None = None
    """The kernel to start; without, the firmware boots the root disk."""

    seed: InstanceSeed
    """What the guest is told at its first boot."""

    run_strategy: RunStrategy
    """Whether the guest should run."""

    start_without_api: Annotated[bool, pydantic.Field(alias="startWithoutAPI")] = False
    """Whether the host starts the guest though it can't reach the API server, as after a reboot of both. True only
    where nothing may place the guest elsewhere without this host's word."""

    termination_grace_period_seconds: Annotated[int, pydantic.Field(ge=0, le=3600)]
    """How long the guest may take to shut down."""

    rules: ClassVar[tuple[schema.Rule, ...]] = (
        schema.Rule(
            rule="self.owner == oldSelf.owner && self.epoch == oldSelf.epoch",
            message="an Instance stands for one placement of one VirtualMachine, for life",
            reason="FieldValueForbidden",
        ),
    )


class InstanceStatus(schema.Observed):
    """What the host runs. Written by its agent alone."""

    observed_generation: int = -1
    """The generation of the spec that this status was concluded from; -1 before the first time."""

    power_state: Annotated[str, pydantic.Field(max_length=16)] = ""
    """What the guest was seen doing: Running, Paused, ShuttingDown, ShutOff or Crashed."""

    conditions: Conditions = ()
    """ImageReady, StorageReady, NetworkReady, PowerStateSynced; Ready when all hold. RestartRequired."""


RESOURCE = schema.Resource(
    kind=schema.Kind(
        kind="Instance",
        plural="instances",
        scope="Namespaced",
        categories=("corral-host",),
        columns=(
            schema.Column("VM", ".spec.owner.name"),
            schema.Column("Namespace", ".spec.owner.namespace"),
            schema.Column("Power", ".status.powerState"),
            schema.Column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
            schema.Column("Age", ".metadata.creationTimestamp", "date"),
            schema.Column("Reason", '.status.conditions[?(@.type=="Ready")].reason', priority=1),
        ),
        selectable=(".spec.owner.uid",),
    ),
    spec=InstanceSpec,
    status=InstanceStatus,
    description="One guest on one host, fully resolved: written by the controller, answered by the host's agent.",
)
