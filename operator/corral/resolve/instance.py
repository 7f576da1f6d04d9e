"""What one host must run: requirements joined with a placement. Every choice that must last for life is made here.

MAC addresses and PCI slots are functions of the VirtualMachine's uid and of what the Instance had before, so that a
guest finds the same hardware after every change, restart and move.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from corral.api import objects
from corral.api.v1alpha1 import image, instance, references, virtualmachine
from corral.resolve.requirements import DiskNeed, InterfaceNeed, Requirements

_DISK_SLOTS = range(3, 12)
_SEED_SLOT = 12
_NIC_SLOTS = range(16, 24)
_BUILDS = 0
"""How often a guest was built anew: with its uid it is cloud-init's instance-id, which another one sets up again."""

VirtualMachine = objects.Object[virtualmachine.VirtualMachineSpec, virtualmachine.VirtualMachineStatus]


def name(vm: VirtualMachine, epoch: int) -> str:
    """The Instance's name: a name that is still in Terminating can't be used again, so uid and epoch are part of it."""
    return f"{vm.namespace}.{vm.name}.{vm.uid}.{epoch}"


def namespace(host: str) -> str:
    """The namespace of a host: its agent may use no other."""
    return f"corral-host-{host}"


def instance_spec(
    vm: VirtualMachine,
    needs: Requirements,
    placement: virtualmachine.Placement,
    before: instance.InstanceSpec | None,
) -> instance.InstanceSpec:
    """The Instance for this placement; `before` is the one that stands, None where there is none yet."""
    addresses: dict[str, list[str]] = {}
    for placed in placement.addresses:
        addresses.setdefault(placed.interface, []).append(placed.address)
    disks = {} if before is None else {disk.name: disk for disk in before.disks}
    disk_slots = {name: disk.slot for name, disk in disks.items()}
    nic_slots = {} if before is None else {nic.name: nic.slot for nic in before.interfaces}
    disk_slots = _slots(disk_slots, (disk.name for disk in needs.disks), _DISK_SLOTS)
    nic_slots = _slots(nic_slots, (interface.name for interface in needs.interfaces), _NIC_SLOTS)
    return instance.InstanceSpec(
        owner=references.Owner(namespace=vm.namespace, name=vm.name, uid=vm.uid),
        epoch=placement.epoch,
        cpu=needs.cpu,
        memory=needs.memory,
        overcommit=needs.overcommit,
        machine_type=needs.machine_type,
        disks=tuple(_disk(disk, disk_slots[disk.name], disks.get(disk.name)) for disk in needs.disks),
        seed_slot=_SEED_SLOT,
        interfaces=tuple(
            _interface(vm.uid, need, nic_slots[need.name], tuple(addresses.get(need.name, ())))
            for need in needs.interfaces
        ),
        boot=_boot(needs.disks[0].image) if before is None else before.boot,
        firmware=needs.firmware if before is None else before.firmware,
        seed=_seed(vm, placement.epoch, before),
        run_strategy=vm.spec.run_strategy,
        start_without_api=starts_without_api(vm),
        termination_grace_period_seconds=vm.spec.termination_grace_period_seconds,
    )


def as_it_stands(vm: VirtualMachine, before: instance.InstanceSpec) -> instance.InstanceSpec:
    """The Instance that stands, with what of the VirtualMachine needs no reference: where one leads nowhere."""
    return before.model_copy(
        update={
            "seed": _seed(vm, before.epoch, before),
            "run_strategy": vm.spec.run_strategy,
            "start_without_api": starts_without_api(vm),
            "termination_grace_period_seconds": vm.spec.termination_grace_period_seconds,
        }
    )


def starts_without_api(vm: VirtualMachine) -> bool:
    """Whether its host may start the guest without asking: only where nothing may place it elsewhere meanwhile.

    A guest leaves its host only once that says that it is gone, so that none can be in two places by this.
    """
    return vm.spec.run_strategy == "Always"


def mac(uid: str, interface: str) -> str:
    """A locally administered MAC address for the interface of this VirtualMachine."""
    digest = hashlib.sha256(f"{uid}/{interface}".encode()).digest()
    return ":".join(f"{byte:02x}" for byte in (0x02, *digest[:5]))


def _slots(had: dict[str, int], names: Iterable[str], slots: range) -> dict[str, int]:
    wanted = list(names)
    kept = {name: slot for name, slot in had.items() if name in wanted}
    free = (slot for slot in slots if slot not in kept.values())
    return {name: kept[name] if name in kept else next(free) for name in wanted}


def _file(source: image.Source, kind: str) -> instance.ImageFile:
    return instance.ImageFile.model_validate({"url": source.url, "sha256": source.sha256, "format": kind})


def _disk(need: DiskNeed, slot: int, before: instance.InstanceDisk | None) -> instance.InstanceDisk:
    if before is not None:
        # It was made from what it was made from, whatever its image is by now.
        return before.model_copy(update={"size": max(need.size, before.size)})
    origin = None if need.image is None else _file(need.image.source, need.image.format)
    return instance.InstanceDisk(name=need.name, size=need.size, slot=slot, image=origin)


def _interface(uid: str, need: InterfaceNeed, slot: int, addresses: tuple[str, ...]) -> instance.InstanceInterface:
    return instance.InstanceInterface(
        name=need.name,
        mac=mac(uid, need.name),
        slot=slot,
        mtu=need.network.mtu,
        addresses=addresses,
        nat=need.network.nat,
        dns_servers=need.network.dns_servers,
        search_domains=need.network.search_domains,
    )


def _boot(root: image.ImageSpec | None) -> instance.InstanceBoot | None:
    if root is None or root.direct_boot is None:
        return None
    boot = root.direct_boot
    return instance.InstanceBoot(
        kernel=_file(boot.kernel, "blob"),
        initramfs=_file(boot.initramfs, "blob"),
        command_line=boot.command_line,
    )


def _seed(vm: VirtualMachine, epoch: int, before: instance.InstanceSpec | None) -> instance.InstanceSeed:
    user_data, secret = _user_data(vm, epoch, None if before is None else before.seed)
    return instance.InstanceSeed(
        instance_id=f"{vm.uid}-{_BUILDS}" if before is None else before.seed.instance_id,
        hostname=vm.name,
        ssh_authorized_keys=vm.spec.ssh_authorized_keys,
        user_data=user_data,
        user_data_secret=secret,
    )


def _user_data(vm: VirtualMachine, epoch: int, before: instance.InstanceSeed | None) -> tuple[str, str | None]:
    """User data, or the name of the Secret beside the Instance that has it."""
    asked = vm.spec.cloud_init or virtualmachine.CloudInit()
    from_secret = asked.user_data_secret_ref is not None
    if before is not None and (from_secret or before.user_data_secret is not None):
        # It was read once, for the first boot: a Secret that comes, changes or goes later reaches no guest.
        return before.user_data, before.user_data_secret
    return ("", name(vm, epoch)) if from_secret else (asked.user_data, None)
