"""What a VirtualMachine needs, with every reference followed, before anything is known of hosts and addresses."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from corral.api import quantities
from corral.api.v1alpha1 import image, ippool, network, references, virtualmachine, virtualmachineclass


class Lookup(Protocol):
    """Where references lead; None where there is no such object."""

    def vm_class(self, name: str) -> virtualmachineclass.VirtualMachineClassSpec | None: ...

    def image(self, ref: references.ImageRef, namespace: str) -> image.ImageSpec | None: ...

    def network(self, ref: references.NetworkRef, namespace: str) -> network.NetworkSpec | None: ...

    def pool(self, name: str) -> ippool.IPPoolSpec | None: ...


@dataclass(frozen=True, slots=True)
class Unmet:
    """A reference leads nowhere: the reason's code, and which one in a sentence."""

    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class DiskNeed:
    """A disk; `size` is in bytes, 0 for as large as its image."""

    name: str
    size: int
    image: image.ImageSpec | None


@dataclass(frozen=True, slots=True)
class PoolNeed:
    """A pool to take an address from."""

    name: str
    prefixes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class InterfaceNeed:
    """An interface, and the pools that its address may be of, in order."""

    name: str
    network_ref: references.NetworkRef
    network: network.NetworkSpec
    pools: tuple[PoolNeed, ...]
    addresses: tuple[str, ...] = ()
    """Those that the VirtualMachine asks for."""


@dataclass(frozen=True, slots=True)
class Requirements:
    """All that a host must give; `memory` is in bytes, whole MiB. The first disk is the root disk."""

    cpu: int
    memory: int
    machine_type: str
    disks: tuple[DiskNeed, ...]
    interfaces: tuple[InterfaceNeed, ...]
    firmware: virtualmachine.Firmware = "BIOS"
    overcommit: virtualmachineclass.Overcommit = virtualmachineclass.USUAL


def requirements(
    spec: virtualmachine.VirtualMachineSpec, namespace: str, lookup: Lookup, made: Collection[str] = ()
) -> Requirements | Unmet:
    """Follow every reference of the spec; the first that leads nowhere is the answer.

    Disks whose names are in `made` need their image no more: it may be gone by now, or be another one.
    """
    size = _size(spec, lookup)
    if isinstance(size, Unmet):
        return size
    disks = _disks(spec, namespace, lookup, made)
    if isinstance(disks, Unmet):
        return disks
    interfaces = []
    for interface in spec.networks:
        need = _interface(interface, namespace, lookup)
        if isinstance(need, Unmet):
            return need
        interfaces.append(need)
    whole = -(-size.memory // quantities.MIB) * quantities.MIB
    firmware = _firmware(size, disks[0].image)
    return Requirements(size.cpu, whole, size.machine_type, disks, tuple(interfaces), firmware, size.overcommit)


@dataclass(frozen=True, slots=True)
class _Size:
    """How large a guest is and how it is built; without `firmware` its image says."""

    cpu: int
    memory: int
    machine_type: str
    firmware: virtualmachine.Firmware | None
    overcommit: virtualmachineclass.Overcommit = virtualmachineclass.USUAL


def _size(spec: virtualmachine.VirtualMachineSpec, lookup: Lookup) -> _Size | Unmet:
    if spec.class_ref is None:
        # The CRD's rules give cpu and memory where there is no class.
        memory = quantities.to_bytes(spec.memory or virtualmachine.SMALLEST_MEMORY)
        return _Size(spec.cpu or 1, memory, "pc", None)
    found = lookup.vm_class(spec.class_ref.name)
    if found is None:
        return Unmet("ClassNotFound", f"There is no VirtualMachineClass {spec.class_ref.name}: see spec.classRef")
    return _Size(found.cpu, quantities.to_bytes(found.memory), found.machine_type, found.firmware, found.overcommit)


def _firmware(size: _Size, root: image.ImageSpec | None) -> virtualmachine.Firmware:
    """The class's word, then the image's; a kernel that the hypervisor starts itself needs no more than BIOS."""
    if root is None:
        return size.firmware or "BIOS"
    return "BIOS" if root.direct_boot is not None else size.firmware or root.firmware


def _disks(
    spec: virtualmachine.VirtualMachineSpec, namespace: str, lookup: Lookup, made: Collection[str]
) -> tuple[DiskNeed, ...] | Unmet:
    wanted: list[tuple[str, str | None, references.ImageRef | None]] = [
        (disk.name, disk.size, disk.image_ref) for disk in sorted(spec.disks, key=lambda disk: not disk.root)
    ]
    if spec.image_ref is not None:
        wanted.insert(0, ("root", None if spec.root_disk is None else spec.root_disk.size, spec.image_ref))
    disks = []
    for name, size, image_ref in wanted:
        ref = None if name in made else image_ref
        found = None if ref is None else lookup.image(ref, namespace)
        if ref is not None and found is None:
            where = f" in namespace {namespace}" if ref.kind == "Image" else ""
            return Unmet("ImageNotFound", f"There is no {ref.kind} {ref.name}{where}: see the imageRef of disk {name}")
        asked = size or (found.default_size if found is not None else None)
        disks.append(DiskNeed(name, quantities.to_bytes(asked) if asked else 0, found))
    return tuple(disks)


def _interface(interface: virtualmachine.NetworkInterface, namespace: str, lookup: Lookup) -> InterfaceNeed | Unmet:
    ref = interface.network_ref
    found = lookup.network(ref, namespace)
    if found is None:
        where = f" in namespace {namespace}" if ref.kind == "Network" else ""
        return Unmet("NetworkNotFound", f"There is no {ref.kind} {ref.name}{where}: see interface {interface.name}")
    pools = []
    for pool_ref in found.pool_refs:
        pool = lookup.pool(pool_ref.name)
        if pool is None:
            return Unmet("PoolNotFound", f"{ref.kind} {ref.name} names IPPool {pool_ref.name}, which is not there")
        pools.append(PoolNeed(pool_ref.name, pool.prefixes))
    return InterfaceNeed(interface.name, ref, found, tuple(pools), interface.addresses)
