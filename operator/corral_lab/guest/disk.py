"""Puts a root file system, an EFI system partition and GRUB together into one bootable disk, without any device.

`debian` calls it. The disk boots by BIOS and by UEFI: GPT, with GRUB's core in a BIOS boot partition of its own. No
loop device, mount or boot sector of this machine is touched: all is written into a file. Sources: UEFI specification
2.10, chapter 5 (GPT), and GRUB 2.06, `util/setup.c` (what grub-bios-setup writes into its two images).
"""

from __future__ import annotations

import pathlib
import struct
import uuid
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

SECTOR = 512
LINUX_ROOT = uuid.UUID("4f68bce3-e8cd-4db1-96e7-fbcaf984b709")
BIOS_BOOT = uuid.UUID("21686148-6449-6e6f-744e-656564454649")
EFI_SYSTEM = uuid.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")

_ALIGNED = 2048  # sectors: 1 MiB, where partitioning tools begin
_ENTRIES = 128
_ENTRY = struct.Struct("<16s16sQQQ72s")
_TABLE_SECTORS = _ENTRIES * _ENTRY.size // SECTOR
_FIRST_USABLE = 2 + _TABLE_SECTORS
_HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")
_CHECKSUM_AT = 16
_PROTECTIVE = struct.Struct("<B3sB3sII")
_CHUNK = 1 << 20

# Where GRUB's boot.img has its code, and the three fields that are filled in at its installation.
_BOOT_CODE = 0x1B8
_KERNEL_SECTOR_AT = 0x5C
_BOOT_DRIVE_AT = 0x64
_DRIVE_CHECK_AT = 0x66
# The core's first sector loads the rest of it: from where, how much, to which segment.
_BLOCK_LIST_AT = SECTOR - 12
_CORE_SEGMENT = 0x820


@dataclass(frozen=True, slots=True)
class Part:
    """A partition: its number in the table from 1, what it is for, its name, and the file with all that is in it."""

    number: int
    kind: uuid.UUID
    name: str
    content: pathlib.Path


@dataclass(frozen=True, slots=True)
class Placed:
    """A partition, and its first and last sector."""

    part: Part
    first: int
    last: int


def layout(parts: Sequence[Part]) -> tuple[tuple[Placed, ...], int]:
    """Where each partition is, one behind the other, and how many sectors the whole disk has."""
    placed, at = [], _ALIGNED
    for part in parts:
        sectors = -(-part.content.stat().st_size // SECTOR)
        placed.append(Placed(part, at, at + sectors - 1))
        at += -(-sectors // _ALIGNED) * _ALIGNED
    return tuple(placed), at + _ALIGNED


def write(target: pathlib.Path, parts: Sequence[Part], boot_image: bytes) -> None:
    """Write the disk, raw and sparse.

    `boot_image` is GRUB's boot.img; the content of the BIOS boot partition is GRUB's core as grub-mkimage made it.
    """
    placed, sectors = layout(parts)
    core = next(one for one in placed if one.part.kind == BIOS_BOOT)
    with target.open("wb") as disk:
        disk.truncate(sectors * SECTOR)
        for one in placed:
            disk.seek(one.first * SECTOR)
            _copy(one.part.content, disk)
        disk.seek(core.first * SECTOR)
        disk.write(core_image(core.part.content.read_bytes(), core.first))
        for at, written in tables(placed, sectors).items():
            disk.seek(at * SECTOR)
            disk.write(written)
        disk.seek(0)
        disk.write(boot_sector(boot_image, core.first, sectors))


def boot_sector(boot_image: bytes, core: int, sectors: int) -> bytes:
    """The first sector: GRUB's loader for a core at sector `core`, and a table that tells old tools of the GPT."""
    sector = bytearray(boot_image[:_BOOT_CODE].ljust(SECTOR, b"\0"))
    struct.pack_into("<Q", sector, _KERNEL_SECTOR_AT, core)
    sector[_BOOT_DRIVE_AT] = 0xFF  # the drive that the firmware booted from
    sector[_DRIVE_CHECK_AT : _DRIVE_CHECK_AT + 2] = b"\x90\x90"  # trust its number: only floppies need the check
    outermost = min(sectors - 1, 0xFFFFFFFF)
    _PROTECTIVE.pack_into(sector, 446, 0, b"\x00\x02\x00", 0xEE, b"\xff\xff\xff", 1, outermost)
    sector[510:] = b"\x55\xaa"
    return bytes(sector)


def core_image(core: bytes, first: int) -> bytes:
    """GRUB's core, told that it lies at sector `first`."""
    image = bytearray(core)
    rest = -(-len(core) // SECTOR) - 1
    struct.pack_into("<QHH", image, _BLOCK_LIST_AT, first + 1, rest, _CORE_SEGMENT)
    return bytes(image)


def tables(placed: Sequence[Placed], sectors: int) -> dict[int, bytes]:
    """The GPT and its copy at the disk's end, by sector."""
    entries = bytearray(_ENTRIES * _ENTRY.size)
    for one in placed:
        unique = uuid.uuid5(one.part.kind, one.part.name)
        name = one.part.name.encode("utf-16-le")
        where = (one.part.number - 1) * _ENTRY.size
        _ENTRY.pack_into(entries, where, one.part.kind.bytes_le, unique.bytes_le, one.first, one.last, 0, name)
    last = sectors - 1
    copy = last - _TABLE_SECTORS
    disk = uuid.uuid5(LINUX_ROOT, " ".join(one.part.name for one in placed))
    return {
        1: _header(disk, bytes(entries), here=1, other=last, table=2),
        2: bytes(entries),
        copy: bytes(entries),
        last: _header(disk, bytes(entries), here=last, other=1, table=copy),
    }


def _header(disk: uuid.UUID, entries: bytes, *, here: int, other: int, table: int) -> bytes:
    usable = max(here, other) - _TABLE_SECTORS - 1
    packed = bytearray(
        _HEADER.pack(
            *(b"EFI PART", 0x00010000, _HEADER.size, 0, 0),
            *(here, other, _FIRST_USABLE, usable, disk.bytes_le),
            *(table, _ENTRIES, _ENTRY.size, zlib.crc32(entries)),
        )
    )
    struct.pack_into("<I", packed, _CHECKSUM_AT, zlib.crc32(packed))
    return bytes(packed)


def _copy(source: pathlib.Path, disk: BinaryIO) -> None:
    """Copy all but what is zero: the disk stays sparse."""
    with source.open("rb") as content:
        while chunk := content.read(_CHUNK):
            if chunk.count(0) == len(chunk):
                disk.seek(len(chunk), 1)
            else:
                disk.write(chunk)
