"""What the first bytes of a qcow2 file say; the image cache and the qcow2 pool both read them.

Read here and never by `qemu-img info`, which opens what an image refers to: a tenant's image that names a file of the
host as its backing file would have it opened. Source: `docs/interop/qcow2.txt` of QEMU, versions 2 and 3; the limits
are those of QEMU's own `block/qcow2.h`.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterator
from dataclasses import dataclass

HEAD_BYTES = 64 * 2**10
"""How many bytes from the start of a file `parse` wants: the whole first cluster of what qemu-img writes."""

_MAGIC = b"QFI\xfb"
_VERSION_2 = struct.Struct(">4sIQIIQIIQQIIQ")
"""Magic, version, backing file (offset, length), cluster bits, size, encryption, L1 (entries, offset), refcount table
(offset, clusters), snapshots (count, offset)."""

_VERSION_3 = struct.Struct(">QQQII")
"""Features (incompatible, compatible, autoclear), refcount order, length of the header; behind those of version 2."""

_EXTENSION = struct.Struct(">II")
_DATA_FILE_NAME = 0x44415441
_CORRUPT, _EXTERNAL_DATA_FILE, _EXTENDED_L2 = 1 << 1, 1 << 2, 1 << 4
_KNOWN_FEATURES = 0b11111
_LONGEST_NAME = 1023
_LARGEST_L1 = 32 * 2**20 // 8
_LARGEST_REFCOUNT_TABLE = 8 * 2**20
_MOST_SNAPSHOTS = 65536


@dataclass(frozen=True, slots=True)
class Header:
    """`virtual_size` is what a guest sees, in bytes; `backing_file` the name as it is written, None without one."""

    version: int
    virtual_size: int
    backing_file: str | None
    has_external_data: bool
    is_encrypted: bool


def is_qcow2(head: bytes) -> bool:
    """Whether a file that begins so says of itself that it is a qcow2 file."""
    return head.startswith(_MAGIC)


def parse(head: bytes) -> Header:
    """Read the header from a file's first `HEAD_BYTES`, or fewer where it ends. Raises ValueError for what is none."""
    if len(head) < _VERSION_2.size or not is_qcow2(head):
        raise ValueError("it does not begin as a qcow2 file does")
    _, version, name_at, name_length, _, virtual_size, encryption, *_ = _VERSION_2.unpack_from(head)
    if version not in (2, 3):
        raise ValueError(f"it is a qcow2 file of version {version}, not 2 or 3")
    return Header(
        version=version,
        virtual_size=virtual_size,
        backing_file=_backing_file(head, name_at, name_length),
        has_external_data=bool(_features(head, version) & _EXTERNAL_DATA_FILE),
        is_encrypted=encryption != 0,
    )


def scrutinize(head: bytes, length: int) -> Header:
    """Read the header of a stranger's file of `length` bytes.

    Raises ValueError for what is none, and for one that no QEMU would open, or only at a cost that is not its author's.
    """
    header = parse(head)
    _, _, name_at, _, cluster_bits, *_ = _VERSION_2.unpack_from(head)
    if not 9 <= cluster_bits <= 21:
        raise ValueError(f"its qcow2 header says clusters of 2^{cluster_bits} bytes, and there are none such")
    features = _features(head, header.version)
    if features & ~_KNOWN_FEATURES:
        raise ValueError(f"it needs features of a newer qcow2 ({features & ~_KNOWN_FEATURES:#x})")
    if features & _CORRUPT:
        raise ValueError("it is marked as corrupt: mend it with qemu-img check -r all")
    cluster = 1 << cluster_bits
    _check_tables(head, length, cluster, cluster // (16 if features & _EXTENDED_L2 else 8))
    kinds = set(_extensions(head, _own_length(head, header.version), min(name_at or cluster, cluster, len(head))))
    return dataclasses.replace(header, has_external_data=header.has_external_data or _DATA_FILE_NAME in kinds)


def _features(head: bytes, version: int) -> int:
    """The incompatible features."""
    if version == 2:
        return 0
    if len(head) < _VERSION_2.size + _VERSION_3.size:
        raise ValueError("its qcow2 header is cut off")
    return int(_VERSION_3.unpack_from(head, _VERSION_2.size)[0])


def _own_length(head: bytes, version: int) -> int:
    """How long the header is, without its extensions."""
    if version == 2:
        return _VERSION_2.size
    *_, refcount_order, length = _VERSION_3.unpack_from(head, _VERSION_2.size)
    if refcount_order > 6:
        raise ValueError(f"its qcow2 header says reference counts of 2^{refcount_order} bits, and there are none such")
    if length < _VERSION_2.size + _VERSION_3.size or length % 8 or length > len(head):
        raise ValueError(f"its qcow2 header says that it is {length} bytes long")
    return int(length)


def _check_tables(head: bytes, length: int, cluster: int, entries: int) -> None:
    """`entries` is how many clusters one entry of the first table leads to."""
    _, _, _, _, _, virtual_size, _, *tables = _VERSION_2.unpack_from(head)
    l1_size, l1_at, refcounts_at, refcount_clusters, snapshots, snapshots_at = tables
    if l1_size > _LARGEST_L1 or l1_size < -(-virtual_size // (cluster * entries)):
        raise ValueError(f"its qcow2 header says {l1_size} entries of the first table for {virtual_size} bytes")
    if not 0 < refcount_clusters * cluster <= _LARGEST_REFCOUNT_TABLE:
        raise ValueError(f"its qcow2 header says {refcount_clusters} clusters of reference counts")
    if snapshots > _MOST_SNAPSHOTS:
        raise ValueError(f"its qcow2 header says {snapshots} snapshots")
    ends = (l1_at + 8 * l1_size, refcounts_at + refcount_clusters * cluster, snapshots_at)
    if any(at % cluster for at in (l1_at, refcounts_at, snapshots_at)) or max(ends) > length:
        raise ValueError("its qcow2 header names a table where the file has none")


def _extensions(head: bytes, at: int, end: int) -> Iterator[int]:
    """The kinds of the header's extensions, up to the one that ends them or to `end`."""
    while at + _EXTENSION.size <= end:
        kind, length = _EXTENSION.unpack_from(head, at)
        if kind == 0:
            return
        at += _EXTENSION.size + length + -length % 8
        if at > end:
            raise ValueError("its qcow2 header has an extension that is longer than the header")
        yield kind


def _backing_file(head: bytes, at: int, length: int) -> str | None:
    # QEMU takes any offset but zero as "there is one", and so an empty name is one too.
    if at == 0:
        return None
    if length > _LONGEST_NAME or at + length > len(head):
        raise ValueError("its qcow2 header names a backing file outside of the header")
    return head[at : at + length].decode(errors="surrogateescape")
