"""The disk that is put together without any device, read back as firmware reads it."""

from __future__ import annotations

import pathlib
import struct
import uuid
import zlib

import pytest

from corral_lab.guest import disk

BOOT = bytes(range(256)) * 2


@pytest.fixture
def parts(tmp_path: pathlib.Path) -> tuple[disk.Part, ...]:
    """GRUB's core of three sectors and a bit, an ESP, and a root with a hole in it."""
    contents = {"bios": b"\xaa" * 1600, "efi": b"efi" * 1000, "root": b"begin" + bytes(3 << 20) + b"end"}
    kinds = {"bios": (14, disk.BIOS_BOOT), "efi": (15, disk.EFI_SYSTEM), "root": (1, disk.LINUX_ROOT)}
    made = []
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        number, kind = kinds[name]
        made.append(disk.Part(number, kind, name, tmp_path / name))
    return tuple(made)


@pytest.fixture
def written(parts: tuple[disk.Part, ...], tmp_path: pathlib.Path) -> bytes:
    target = tmp_path / "disk.raw"
    disk.write(target, parts, BOOT)
    return target.read_bytes()


def _header(raw: bytes, sector: int) -> tuple[int, ...]:
    head = bytearray(raw[sector * 512 : sector * 512 + 92])
    (signature, revision, size, checksum) = struct.unpack_from("<8sIII", head)
    assert (signature, revision, size) == (b"EFI PART", 0x10000, 92)
    head[16:20] = bytes(4)
    assert zlib.crc32(head) == checksum
    here, other, first, last = struct.unpack_from("<QQQQ", head, 24)
    table, count, each, entries = struct.unpack_from("<QIII", head, 72)
    assert here == sector
    assert zlib.crc32(raw[table * 512 : table * 512 + count * each]) == entries
    return other, first, last, table


def test_both_tables_are_whole_and_name_each_other(written: bytes) -> None:
    last = len(written) // 512 - 1
    other, first, usable, table = _header(written, 1)
    assert (other, table) == (last, 2)
    back, first_too, usable_too, copy = _header(written, last)
    assert (back, first_too, usable_too) == (1, first, usable)
    assert written[table * 512 : first * 512] == written[copy * 512 : last * 512]
    assert (first, usable) == (34, copy - 1)


def test_partitions_lie_where_the_table_says_and_hold_what_they_should(
    written: bytes, parts: tuple[disk.Part, ...]
) -> None:
    end = 0
    for part in parts:
        entry = written[2 * 512 + (part.number - 1) * 128 :][:128]
        kind, unique, first, last, _, name = struct.unpack("<16s16sQQQ72s", entry)
        assert uuid.UUID(bytes_le=kind) == part.kind
        assert unique != bytes(16)
        assert name.decode("utf-16-le").rstrip("\0") == part.name
        assert first % 2048 == 0
        assert end < first <= last < len(written) // 512 - 34
        end = last
        content = part.content.read_bytes()
        if part.kind != disk.BIOS_BOOT:
            assert written[first * 512 :].startswith(content)


def test_a_bios_finds_grub_and_grub_finds_itself(written: bytes, parts: tuple[disk.Part, ...]) -> None:
    core = disk.layout(parts)[0][0].first
    sector = written[:512]
    assert sector[510:] == b"\x55\xaa"
    assert sector[:0x5C] == BOOT[:0x5C]
    assert struct.unpack_from("<Q", sector, 0x5C) == (core,)
    assert (sector[0x64], sector[0x66:0x68]) == (0xFF, b"\x90\x90")
    assert (sector[450], struct.unpack_from("<II", sector, 454)) == (0xEE, (1, len(written) // 512 - 1))
    image = written[core * 512 :][:1600]
    assert struct.unpack_from("<QHH", image, 500) == (core + 1, 3, 0x820)
    assert image[512:] == b"\xaa" * (1600 - 512)


def test_the_same_files_make_the_same_disk_and_holes_stay_holes(
    written: bytes, parts: tuple[disk.Part, ...], tmp_path: pathlib.Path
) -> None:
    again = tmp_path / "again.raw"
    disk.write(again, parts, BOOT)
    assert again.read_bytes() == written
    assert again.stat().st_blocks * 512 < 3 << 20
