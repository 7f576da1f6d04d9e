"""Host: a machine that runs guests, as its operator names it. HostState: what that one machine must be, and is."""

from __future__ import annotations

from typing import Annotated

import pydantic

from corral.api import schema
from corral.api.v1alpha1.bgp import Bgp, BgpStatus
from corral.api.v1alpha1.conditions import Conditions
from corral.api.v1alpha1.virtualmachine import PlacedAddress

LONGEST_HOST_NAME = 51
"""What is left of a namespace's 63 characters after `corral-host-`."""


class HypervisorSettings(schema.Model):
    """How the agent reaches its hypervisor."""

    driver: Annotated[str, pydantic.Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")] = (
        "libvirt-qemu"
    )
    """The driver: libvirt-qemu, or another that is installed on the host; simulated has guests in memory only."""


class Reserved(schema.Model):
    """What the host keeps for itself."""

    memory: schema.Quantity = "512Mi"
    """Memory that no guest is placed on."""


class HostSpec(schema.Model):
    """How a machine takes part in the cloud."""

    hypervisor: HypervisorSettings = HypervisorSettings()
    """The hypervisor."""

    reserved: Reserved = Reserved()
    """What the host keeps for itself."""

    maintenance: bool = False
    """True: no new guest is placed here. The guests that are here stay."""

    bgp: Bgp | None = None
    """BGP with the fabric; without it the host announces nothing, and its FRR, if it has one, is not touched."""


class Resources(schema.Observed):
    """An amount of what guests are made of."""

    cpu: Annotated[int, pydantic.Field(ge=0)] = 0
    """CPUs."""

    memory: schema.Quantity = "0"
    """Memory, as a quantity of bytes."""


class Allocated(schema.Observed):
    """What guests take of a host: those that are there and those that are on their way, whether they run or not."""

    guests: Annotated[int, pydantic.Field(ge=0)] = 0
    """How many guests."""

    virtual_cpus: Annotated[int, pydantic.Field(ge=0)] = 0
    """Virtual CPUs that they have."""

    cpu: Annotated[int, pydantic.Field(ge=0)] = 0
    """CPUs that they are charged with, rounded up: what is charged for a virtual CPU is said by its class."""

    memory: schema.Quantity = "0"
    """Memory that they are charged with, with what the hypervisor needs for each."""


class Facts(schema.Observed):
    """What the agent found on its machine."""

    hypervisor: Annotated[str, pydantic.Field(max_length=63)] = ""
    """Hypervisor and its version, such as QEMU 7.2.0."""

    accelerator: Annotated[str, pydantic.Field(max_length=16)] = ""
    """kvm, or tcg where KVM was tried and does not work."""

    agent_version: Annotated[str, pydantic.Field(max_length=63)] = ""
    """Version of the agent."""


class HostStatus(schema.Observed):
    """What the machine says, concluded by the controller."""

    observed_generation: int = -1
    """The generation of the spec that this status was concluded from; -1 before the first time."""

    capacity: Resources = Resources()
    """What the machine has."""

    allocatable: Resources = Resources()
    """What guests can have of it."""

    allocated: Allocated = Allocated()
    """What guests take of it; told some seconds late."""

    facts: Facts = Facts()
    """What the agent found."""

    orphans: Annotated[int, pydantic.Field(ge=0)] = 0
    """How many VirtualMachines there are of which something is on the machine, and no Instance says so."""

    bgp: BgpStatus | None = None
    """How it stands with the fabric, where spec.bgp says that the host speaks BGP."""

    conditions: Conditions = ()
    """Ready: guests can be placed here. AgentConnected: its agent answers. FabricReady: with spec.bgp, at least one
    neighbor is told the host's addresses. Stalled: somebody must act."""


HOST = schema.Resource(
    kind=schema.Kind(
        kind="Host",
        plural="hosts",
        scope="Cluster",
        categories=("corral",),
        columns=(
            schema.Column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
            schema.Column("CPU", ".status.allocatable.cpu", "integer"),
            schema.Column("Memory", ".status.allocatable.memory"),
            schema.Column("Allocated", ".status.allocated.memory"),
            schema.Column("Guests", ".status.allocated.guests", "integer"),
            schema.Column("Zone", r".metadata.labels.topology\.kubernetes\.io/zone"),
            schema.Column("Accelerator", ".status.facts.accelerator"),
            schema.Column("Age", ".metadata.creationTimestamp", "date"),
            schema.Column("Hypervisor", ".status.facts.hypervisor", priority=1),
            schema.Column("Orphans", ".status.orphans", "integer", priority=1),
            schema.Column("BGP", ".status.bgp.established", priority=1),
            schema.Column("Fabric", '.status.conditions[?(@.type=="FabricReady")].reason', priority=1),
            schema.Column("Reason", '.status.conditions[?(@.type=="Ready")].reason', priority=1),
        ),
        rules=(
            schema.Rule(
                rule="self.metadata.name.matches('^[a-z0-9]([-a-z0-9]{0,49}[a-z0-9])?$')",
                message=(
                    "metadata.name of a Host is at most 51 of a-z, 0-9 and '-', without dots: "
                    "its namespace is corral-host-NAME"
                ),
            ),
        ),
    ),
    spec=HostSpec,
    status=HostStatus,
    description="A machine that runs guests. Its agent has a namespace of its own, corral-host-NAME.",
)


class HostStateSpec(schema.Model):
    """What this one machine must be, fully resolved. Written by the controller alone."""

    cloud: schema.Uid
    """UID of the Cloud: marks on the host carry it, and what carries another is foreign."""

    host: schema.Uid
    """UID of the Host: marks on the host carry it too."""

    hypervisor: HypervisorSettings
    """The hypervisor."""

    blocks: Annotated[tuple[schema.Prefix, ...], pydantic.Field(max_length=1024)] = ()
    """The address blocks of this host: it announces each as one route, and drops what is for no guest of them."""

    pools: Annotated[tuple[schema.Prefix, ...], pydantic.Field(max_length=1024)] = ()
    """Every prefix of every IPPool: a guest's address of them outside this host's blocks is a route of its own."""

    roll_call: Annotated[str, pydantic.Field(max_length=64)] = ""
    """Another value asks the agent to list its Instances, look at the machine, and report anew."""

    bgp: Bgp | None = None
    """BGP with the fabric, as the Host has it."""


class Marks(schema.Observed):
    """What everything of ours on a machine is marked with."""

    cloud: schema.Uid
    """UID of the Cloud."""

    host: schema.Uid
    """UID of the Host."""


class HeldImage(schema.Observed):
    """What became of one image on this host."""

    sha256: schema.Sha256
    """The sum of the image."""

    held: bool
    """Whether it is here, whole and checked."""

    reason: Annotated[str, pydantic.Field(max_length=64)] = ""
    """Why it is not, as a code."""

    message: schema.Sentence = ""
    """Why it is not, in a sentence."""


class Orphan(schema.Observed):
    """Something that carries our mark and has no Instance: it stays as it is until somebody decides."""

    uid: Annotated[str, pydantic.Field(max_length=64)]
    """UID of the VirtualMachine that it was made for, as its mark says."""

    name: Annotated[str, pydantic.Field(max_length=253)] = ""
    """What it is called on the host."""

    kinds: Annotated[tuple[Annotated[str, pydantic.Field(max_length=16)], ...], pydantic.Field(max_length=8)] = ()
    """What there is of it: domain, disk, seed, tap, rules, dhcp (what it is answered)."""

    epoch: Annotated[int, pydantic.Field(ge=0)] = 0
    """Which placement of the VirtualMachine it was made for; 0 where nothing says so."""

    addresses: Annotated[tuple[PlacedAddress, ...], pydantic.Field(max_length=16)] = ()
    """The addresses that it was made with: no other guest is given them."""


class HostStateStatus(schema.Observed):
    """What this one machine is. Written by its agent alone."""

    observed_generation: int = -1
    """The generation of the spec that the agent has taken up; -1 before the first time."""

    capacity: Resources = Resources()
    """What the machine has."""

    facts: Facts = Facts()
    """What the agent found."""

    images: Annotated[tuple[HeldImage, ...], pydantic.Field(max_length=512)] = ()
    """The images that were asked for here."""

    orphans: Annotated[tuple[Orphan, ...], pydantic.Field(max_length=512)] = ()
    """What carries our mark and has no Instance."""

    marks: Marks | None = None
    """What is on the machine is marked with, where that is not what the spec says: the agent waits, and guests run on.
    Marks of the same Cloud are taken up into the spec; what another Cloud's Host has left is never touched."""

    orphan_count: Annotated[int, pydantic.Field(ge=0)] = 0
    """How many those are: the list has room for 512."""

    bgp: BgpStatus | None = None
    """How it stands with the fabric."""

    conditions: Conditions = ()
    """HypervisorReady: the hypervisor answers. FabricReady: with spec.bgp, at least one session is established."""


HOST_STATE = schema.Resource(
    kind=schema.Kind(
        kind="HostState",
        plural="hoststates",
        scope="Namespaced",
        categories=("corral-host",),
        columns=(
            schema.Column("Hypervisor", '.status.conditions[?(@.type=="HypervisorReady")].status'),
            schema.Column("Version", ".status.facts.hypervisor"),
            schema.Column("Orphans", ".status.orphanCount", "integer"),
            schema.Column("BGP", ".status.bgp.established", priority=1),
            schema.Column("Age", ".metadata.creationTimestamp", "date"),
        ),
    ),
    spec=HostStateSpec,
    status=HostStateStatus,
    description="What one host must be, and is: written by the controller, answered by the host's agent.",
)
