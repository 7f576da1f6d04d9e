"""What the hypervisor is asked for and what it shows: frozen values, in libvirt's words."""

from __future__ import annotations

import enum
from dataclasses import dataclass

ACCELERATORS = ("kvm", "tcg")
"""What a domain's processor may be made of."""


class Cause(enum.StrEnum):
    """Why the hypervisor could not do a step."""

    CONNECTION_LOST = "ConnectionLost"
    """The hypervisor's daemon does not answer."""

    NO_MEMORY = "NoMemory"
    """The host can't hold the guest's memory."""

    DEVICE_MISSING = "DeviceMissing"
    """A file or a tap that the domain needs is not there (yet)."""

    DEVICE_BUSY = "DeviceBusy"
    """Another process holds a device or file of the domain."""

    UNSUPPORTED = "Unsupported"
    """This hypervisor can't run such a domain: machine type, firmware, accelerator, device."""

    NAME_TAKEN = "NameTaken"
    """A domain that is not ours has this name or uuid."""

    FAILED = "Failed"
    """Anything else: the message has the hypervisor's own words."""


class Power(enum.StrEnum):
    """What state a domain should be in."""

    RUNNING = "Running"
    STOPPED = "Stopped"


class State(enum.StrEnum):
    """What state a domain is seen in (libvirt's virDomainState, without the ones that no driver of ours shows)."""

    RUNNING = "Running"
    PAUSED = "Paused"
    SHUTTING_DOWN = "ShuttingDown"
    SHUT_OFF = "ShutOff"
    CRASHED = "Crashed"

    @property
    def is_active(self) -> bool:
        """Whether a process of the guest lives."""
        return self in (State.RUNNING, State.PAUSED, State.SHUTTING_DOWN)


@dataclass(frozen=True, slots=True, order=True)
class Mark:
    """Whose a domain is; kept in its metadata. What carries another cloud's or host's uid is foreign."""

    cloud: str
    host: str
    namespace: str
    name: str
    uid: str
    epoch: int


@dataclass(frozen=True, slots=True, order=True)
class Disk:
    """A block device of a domain. `slot` is its PCI slot on bus 0, for life."""

    target: str
    path: str
    format: str
    slot: int
    serial: str
    read_only: bool = False


@dataclass(frozen=True, slots=True, order=True)
class Interface:
    """A NIC of a domain on a tap that exists already. `slot` is its PCI slot on bus 0, for life."""

    tap: str
    mac: str
    mtu: int
    slot: int


@dataclass(frozen=True, slots=True, order=True)
class DirectBoot:
    """A kernel that the hypervisor loads itself, instead of firmware and a boot loader."""

    kernel: str
    initramfs: str
    command_line: str


@dataclass(frozen=True, slots=True, order=True)
class Firmware:
    """UEFI as it is installed on a host: the code that all guests share, and the variables that each starts with."""

    code: str
    template: str


@dataclass(frozen=True, slots=True, order=True)
class Uefi:
    """UEFI of one guest. `variables` is its own file: made of the template at its first start, gone with the domain."""

    firmware: Firmware
    variables: str


@dataclass(frozen=True, slots=True)
class Domain:
    """A guest as the hypervisor should know it. `memory` is in bytes, a multiple of 1 MiB.

    `accelerator` is `kvm` or `tcg`. `machine` is a family (`pc`) or one version of it (`pc-i440fx-7.2`). Without `uefi`
    the guest has the machine's own BIOS.
    """

    uuid: str
    name: str
    mark: Mark
    cpus: int
    memory: int
    machine: str
    accelerator: str
    console_log: str
    disks: tuple[Disk, ...]
    interfaces: tuple[Interface, ...]
    boot: DirectBoot | None = None
    uefi: Uefi | None = None


@dataclass(frozen=True, slots=True)
class Desired:
    """A domain and the state it should be in; `grace` is what an ACPI shutdown gets, in seconds.

    `unheld` are taps of the domain that nobody holds, though the guest lived before that was seen.
    """

    domain: Domain
    power: Power
    grace: float
    unheld: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Observed:
    """A domain of ours as it is.

    `persistent` is the stored definition, None where somebody undefined it under a living guest; `active` is what the
    living guest runs with, None where it doesn't live. `pid` is the guest's process, where the driver knows it.
    `edited` is what a stored definition says that is none of ours any more: edited by hand, or of an older Corral.
    """

    uuid: str
    mark: Mark
    state: State
    persistent: Domain | None
    active: Domain | None
    pid: int | None = None
    edited: Domain | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What a host can run. `memory` is in bytes; `accelerator` was found by trying; `uefi` is None for BIOS only."""

    cpus: int
    memory: int
    accelerator: str
    hypervisor: str
    version: str
    uefi: Firmware | None = None
