"""Which domains this port's drivers take at all. Pure; every driver asks before it stores a domain.

What a hypervisor would give back otherwise than it was written (upper-case MACs, disks out of order, text that XML
can't carry) would differ from what is desired for ever, and be defined again for ever: it is refused here, with words.
"""

from __future__ import annotations

import re
import unicodedata
import uuid
from collections.abc import Iterator

from corral_drivers import errors
from corral_drivers.hypervisor.model import ACCELERATORS, Cause, DirectBoot, Disk, Domain, Interface, Uefi

SLOTS = range(3, 30)
"""PCI slots of bus 0 for disks and interfaces: 0 to 2, 30 and 31 hold the chipset and the drivers' own devices."""

_MEBIBYTE = 1 << 20
_TARGET = re.compile(r"vd[a-z]{1,2}")
_SERIAL = re.compile(r"[A-Za-z0-9_.+-]{1,20}")  # virtio-blk keeps 20 bytes
_TAP = re.compile(r"[A-Za-z0-9_.-]{1,15}")  # the kernel's IFNAMSIZ, without its final zero
_MAC = re.compile(r"[0-9a-f][02468ace](:[0-9a-f]{2}){5}")  # lower case, unicast
_MACHINE = re.compile(r"[A-Za-z0-9_.-]+")
_FORMATS = ("qcow2", "raw")


def check(domain: Domain) -> None:
    """Raise `errors.Rejected` with cause `Unsupported`, naming every fault, unless a driver can keep this domain."""
    faults = tuple(_faults(domain))
    if faults:
        raise errors.Rejected(Cause.UNSUPPORTED, f"define domain {domain.name!r}: {'; '.join(faults)}")


def _faults(domain: Domain) -> Iterator[str]:
    yield from _identity(domain)
    yield from _sizes(domain)
    if not domain.console_log.startswith("/"):
        yield f"console log {domain.console_log!r} is not an absolute path"
    if domain.boot is not None:
        yield from _boot(domain.boot)
    if domain.uefi is not None:
        yield from _uefi(domain.uefi)
    for disk in domain.disks:
        yield from _disk(disk)
    for interface in domain.interfaces:
        yield from _interface(interface)
    yield from _order(domain)
    yield from (f"{text!r} has characters that XML can't carry" for text in _texts(domain) if not _is_plain(text))


def _identity(domain: Domain) -> Iterator[str]:
    try:
        canonical = str(uuid.UUID(domain.uuid))
    except ValueError:
        canonical = ""
    if domain.uuid != canonical:
        yield f"uuid {domain.uuid!r} is not written as RFC 9562 has it"
    if not domain.name.strip() or "/" in domain.name or domain.name.startswith("."):
        yield "a name is not empty, does not start with a dot and holds no slash"
    if len(domain.name.encode(errors="replace")) > 200:
        yield "a name takes 200 bytes at most: files are named after it"


def _sizes(domain: Domain) -> Iterator[str]:
    if domain.cpus < 1:
        yield f"{domain.cpus} cpus"
    if domain.memory < _MEBIBYTE or domain.memory % _MEBIBYTE:
        yield f"memory of {domain.memory} bytes is not a multiple of 1 MiB"
    if domain.accelerator not in ACCELERATORS:
        yield f"accelerator {domain.accelerator!r} is none of {', '.join(ACCELERATORS)}"
    if not _MACHINE.fullmatch(domain.machine):
        yield f"machine {domain.machine!r}"


def _boot(boot: DirectBoot) -> Iterator[str]:
    if not boot.kernel.startswith("/"):
        yield f"kernel {boot.kernel!r} is not an absolute path"
    if boot.initramfs and not boot.initramfs.startswith("/"):
        yield f"initramfs {boot.initramfs!r} is not an absolute path"


def _uefi(uefi: Uefi) -> Iterator[str]:
    for what, path in _files(uefi):
        if not path.startswith("/"):
            yield f"{what} {path!r} is not an absolute path"


def _files(uefi: Uefi) -> tuple[tuple[str, str], ...]:
    firmware = uefi.firmware
    return (
        ("UEFI code", firmware.code),
        ("template of UEFI variables", firmware.template),
        ("file of UEFI variables", uefi.variables),
    )


def _disk(disk: Disk) -> Iterator[str]:
    if not _TARGET.fullmatch(disk.target):
        yield f"disk target {disk.target!r} is not vda, vdb, …"
    if not disk.path.startswith("/"):
        yield f"disk {disk.target}: {disk.path!r} is not an absolute path"
    if disk.format not in _FORMATS:
        yield f"disk {disk.target}: format {disk.format!r} is none of {', '.join(_FORMATS)}"
    if not _SERIAL.fullmatch(disk.serial):
        yield f"disk {disk.target}: serial {disk.serial!r} is not 1 to 20 of A-Z a-z 0-9 _ . + -"


def _interface(interface: Interface) -> Iterator[str]:
    if not _TAP.fullmatch(interface.tap):
        yield f"tap {interface.tap!r} is not a name of 1 to 15 characters"
    if not _MAC.fullmatch(interface.mac):
        yield f"MAC {interface.mac!r} is not a unicast address in lower case"
    if not 68 <= interface.mtu <= 65535:
        yield f"MTU {interface.mtu} is not between 68 and 65535"


def _order(domain: Domain) -> Iterator[str]:
    targets = [disk.target for disk in domain.disks]
    if targets != sorted(set(targets), key=lambda target: (len(target), target)):
        yield "disks are not in the order of their targets, each once"
    macs = [interface.mac for interface in domain.interfaces]
    if len(set(macs)) < len(macs):
        yield "two interfaces have the same MAC"
    slots = [disk.slot for disk in domain.disks] + [interface.slot for interface in domain.interfaces]
    if len(set(slots)) < len(slots) or not all(slot in SLOTS for slot in slots):
        yield f"PCI slots {slots} are not all different and within {SLOTS.start} to {SLOTS.stop - 1}"


def _texts(domain: Domain) -> Iterator[str]:
    mark = domain.mark
    yield from (domain.name, domain.console_log, mark.cloud, mark.host, mark.namespace, mark.name, mark.uid)
    yield from (disk.path for disk in domain.disks)
    if domain.boot is not None:
        yield from (domain.boot.kernel, domain.boot.initramfs, domain.boot.command_line)
    if domain.uefi is not None:
        yield from (path for _, path in _files(domain.uefi))


def _is_plain(text: str) -> bool:
    """No control characters (of which XML 1.0 refuses most and rewrites the others), surrogates or non-characters."""
    return not any(unicodedata.category(letter) in ("Cc", "Cs") or (ord(letter) & 0xFFFE) == 0xFFFE for letter in text)
