"""An Instance's spec into what the drivers of its host should make: pure, the same values for the same spec.

`agent.guest` asks for one room's values at a time, because some need what an earlier room has answered: a disk needs to
know where its image is, and how large.
"""

from __future__ import annotations

import hashlib
import ipaddress
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from corral.api import objects
from corral.api.v1alpha1 import instance
from corral_drivers.dhcp import model as dhcp
from corral_drivers.firewall import model as firewall
from corral_drivers.hypervisor import model as hypervisor
from corral_drivers.image import model as image
from corral_drivers.link import model as link
from corral_drivers.routing import model as routing
from corral_drivers.seed import model as seed
from corral_drivers.storage import model as storage

GATEWAY = "169.254.1.1"
"""The gateway that every guest is told; the host answers for it on every tap."""

GATEWAY_V6 = "fe80::1"
"""The same over IPv6, an address of each tap."""

_GATEWAYS = ((4, GATEWAY), (6, GATEWAY_V6))

_SEED_SERIAL = "corral-seed"

Cache = Mapping[tuple[str, image.Format], image.Held]
"""What is held on this host, by sum and format."""


@dataclass(frozen=True, slots=True)
class Host:
    """What a guest's values have of their host: whose its marks are, and the folders of console logs and of the
    variables of UEFI guests.
    """

    cloud: str
    uid: str
    consoles: str
    variables: str


@dataclass(frozen=True, slots=True)
class Files:
    """Where a guest's files are: disks by name, and the seed. `disk_format` is what the pool keeps them in.

    `firmware` is the host's, of a guest that is started by UEFI.
    """

    disks: Mapping[str, str]
    disk_format: str
    seed: str
    firmware: hypervisor.Firmware | None = None


def check(spec: instance.InstanceSpec) -> None:
    """Refuse what the API server can't see to be wrong. Raises `objects.NotUnderstood` with the first field."""
    for index, nic in enumerate(spec.interfaces):
        for address in nic.addresses:
            try:
                ipaddress.ip_address(address)
            except ValueError:
                raise objects.NotUnderstood(f"spec.interfaces.{index}.addresses: {address!r} is no address") from None
    slots = [spec.seed_slot, *(disk.slot for disk in spec.disks), *(nic.slot for nic in spec.interfaces)]
    if len(set(slots)) < len(slots):
        raise objects.NotUnderstood("spec: two devices have the same PCI slot")


def images(spec: instance.InstanceSpec) -> tuple[image.Image, ...]:
    """Every file that must be held before the guest can run, without doubles."""
    files = [disk.image for disk in spec.disks if disk.image is not None]
    if spec.boot is not None:
        files += [spec.boot.kernel, spec.boot.initramfs]
    return tuple(sorted({image.Image(file.sha256, file.url, image.Format(file.format)) for file in files}))


def disks(spec: instance.InstanceSpec, held: Cache) -> tuple[storage.Disk, ...]:
    """The disks that can be made now: those of an image that is not held yet are left out."""
    return tuple(_disks(spec, held))


def _disks(spec: instance.InstanceSpec, held: Cache) -> Iterator[storage.Disk]:
    for disk in spec.disks:
        if disk.image is None:
            yield storage.Disk(spec.owner.uid, disk.name, disk.size)
        elif source := _held(held, disk.image):
            size = disk.size or source.virtual_size
            yield storage.Disk(spec.owner.uid, disk.name, size, base=source.path, base_format=source.format.value)


def _held(held: Cache, file: instance.ImageFile) -> image.Held | None:
    return held.get((file.sha256, image.Format(file.format)))


def seed_of(spec: instance.InstanceSpec, user_data: str) -> seed.Seed:
    """What the guest is told at its first boot; the first interface leads out."""
    return seed.Seed(
        owner=spec.owner.uid,
        instance_id=spec.seed.instance_id,
        hostname=spec.seed.hostname,
        nics=tuple(_nic(nic, leads_out=index == 0) for index, nic in enumerate(spec.interfaces)),
        ssh_authorized_keys=spec.seed.ssh_authorized_keys,
        user_data=user_data,
    )


def _nic(nic: instance.InstanceInterface, *, leads_out: bool) -> seed.Nic:
    families = {ipaddress.ip_address(address).version for address in nic.addresses}
    ways = tuple(seed.Route(to="default", via=via) for family, via in _GATEWAYS if family in families)
    return seed.Nic(
        name=nic.name,
        mac=nic.mac,
        mtu=nic.mtu,
        addresses=tuple(_alone(address) for address in nic.addresses),
        routes=ways if leads_out else (),
        dns_servers=nic.dns_servers,
        search_domains=nic.search_domains,
    )


def _alone(address: str) -> str:
    return str(ipaddress.ip_interface(address))


def tap_name(owner: str, interface: str) -> str:
    """The name of a guest's tap: 14 of the 15 characters that the kernel allows, the same at every start."""
    return "ct" + hashlib.sha256(f"{owner}/{interface}".encode()).hexdigest()[:12]


def taps(spec: instance.InstanceSpec) -> tuple[link.Tap, ...]:
    """One tap an interface."""
    return tuple(
        link.Tap(name=tap_name(spec.owner.uid, nic.name), owner=spec.owner.uid, mtu=nic.mtu) for nic in spec.interfaces
    )


def filtered(spec: instance.InstanceSpec, announced: Sequence[str]) -> tuple[firewall.Tap, ...]:
    """What each interface may send from, and as whom it is seen outside; `announced` are the host's own addresses."""
    outside = {ipaddress.ip_address(address).version: address for address in reversed(announced)}
    return tuple(
        firewall.Tap(
            interface=tap_name(spec.owner.uid, nic.name),
            owner=spec.owner.uid,
            mac=nic.mac,
            addresses=tuple(str(ipaddress.ip_address(address)) for address in nic.addresses),
            nat=tuple(sorted(outside.values())) if nic.nat else (),
        )
        for nic in spec.interfaces
    )


def table(spec: instance.InstanceSpec) -> routing.Table:
    """A host route and a permanent neighbour for each address."""
    routes, neighbours = [], []
    for nic in spec.interfaces:
        tap = tap_name(spec.owner.uid, nic.name)
        routes += [routing.Route(_alone(address), tap) for address in nic.addresses]
        neighbours += [routing.Neighbour(str(ipaddress.ip_address(address)), nic.mac, tap) for address in nic.addresses]
    return routing.Table(tuple(sorted(set(routes))), tuple(sorted(set(neighbours))))


def service(spec: instance.InstanceSpec) -> dhcp.Service:
    """What the guest is answered on its taps: the same as its seed says."""
    told = seed_of(spec, user_data="")
    return dhcp.Service(
        owner=spec.owner.uid,
        answers=tuple(
            dhcp.Answer(
                interface=tap_name(spec.owner.uid, nic.name),
                mac=nic.mac,
                mtu=nic.mtu,
                addresses=tuple(str(ipaddress.ip_interface(address).ip) for address in nic.addresses),
                leads_out=bool(nic.routes),
                hostname=told.hostname,
                dns_servers=tuple(str(ipaddress.ip_address(server)) for server in nic.dns_servers),
                search_domains=nic.search_domains,
            )
            for nic in told.nics
        ),
    )


def console_log(host: Host, owner: str) -> str:
    """Where the guest's console is written to."""
    return f"{host.consoles}/{owner}.log"


def variables(host: Host, owner: str) -> str:
    """Where the guest's UEFI variables are."""
    return f"{host.variables}/{owner}.fd"


def domain(
    spec: instance.InstanceSpec, host: Host, files: Files, held: Cache, accelerator: str
) -> hypervisor.Domain | None:
    """The guest as the hypervisor should know it; None while its kernel or initramfs is not held."""
    boot = None
    if spec.boot is not None:
        kernel, initramfs = _held(held, spec.boot.kernel), _held(held, spec.boot.initramfs)
        if kernel is None or initramfs is None:
            return None
        boot = hypervisor.DirectBoot(kernel.path, initramfs.path, spec.boot.command_line)
    owner = spec.owner
    return hypervisor.Domain(
        uuid=owner.uid,
        name=f"{owner.namespace}.{owner.name}.{owner.uid[:8]}",
        mark=hypervisor.Mark(host.cloud, host.uid, owner.namespace, owner.name, owner.uid, spec.epoch),
        cpus=spec.cpu,
        memory=spec.memory,
        machine=spec.machine_type,
        accelerator=accelerator,
        console_log=console_log(host, owner.uid),
        disks=_block_devices(spec, files),
        interfaces=tuple(
            hypervisor.Interface(tap=tap_name(owner.uid, nic.name), mac=nic.mac, mtu=nic.mtu, slot=nic.slot)
            for nic in spec.interfaces
        ),
        boot=boot,
        uefi=None if files.firmware is None else hypervisor.Uefi(files.firmware, variables(host, owner.uid)),
    )


def _block_devices(spec: instance.InstanceSpec, files: Files) -> tuple[hypervisor.Disk, ...]:
    targets = [f"vd{letter}" for letter in string.ascii_lowercase]
    devices = _named(spec.disks, files, targets)
    last = hypervisor.Disk(targets[len(devices)], files.seed, "raw", spec.seed_slot, _SEED_SERIAL, read_only=True)
    return (*devices, last)


def _named(
    wanted: Sequence[instance.InstanceDisk], files: Files, targets: Sequence[str]
) -> tuple[hypervisor.Disk, ...]:
    return tuple(
        hypervisor.Disk(target, files.disks[disk.name], files.disk_format, disk.slot, serial=disk.name)
        for target, disk in zip(targets, wanted, strict=False)
    )
