"""What the first bytes of a qcow2 file say; the image cache and the qcow2 pool both read them.

Read here and never by `qemu-img info`, which opens what an image refers to: a tenant's image that names a file of the
host as its backing file would have it opened. Source: `docs/interop/qcow2.txt` of QEMU, versions 2 and 3.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

HEAD_BYTES = 64 * 2**10
"""How many bytes from the start of a file `parse` wants: the whole first cluster of what qemu-img writes."""

_MAGIC = b"QFI\xfb"
_VERSION_2 = struct.Struct(">4sIQIIQI")
_INCOMPATIBLE_FEATURES = struct.Struct(">Q")
_INCOMPATIBLE_FEATURES_AT = 72
_EXTERNAL_DATA_FILE = 1 << 2
_LONGEST_NAME = 1023


@dataclass(frozen=True, slots=True)
class Header:
    """`virtual_size` is what a guest sees, in bytes; `backing_file` the name as it is written, None without one."""

    version: int
    virtual_size: int
    backing_file: str | None
    has_external_data: bool
    is_encrypted: bool


def parse(head: bytes) -> Header:
    """Read the header from a file's first `HEAD_BYTES`, or fewer where it ends. Raises ValueError for what is none."""
    if len(head) < _VERSION_2.size or not head.startswith(_MAGIC):
        raise ValueError("it does not begin as a qcow2 file does")
    _, version, name_at, name_length, _, virtual_size, encryption = _VERSION_2.unpack_from(head)
    if version not in (2, 3):
        raise ValueError(f"it is a qcow2 file of version {version}, not 2 or 3")
    features = 0
    if version == 3:
        if len(head) < _INCOMPATIBLE_FEATURES_AT + _INCOMPATIBLE_FEATURES.size:
            raise ValueError("its qcow2 header is cut off")
        (features,) = _INCOMPATIBLE_FEATURES.unpack_from(head, _INCOMPATIBLE_FEATURES_AT)
    return Header(
        version=version,
        virtual_size=virtual_size,
        backing_file=_backing_file(head, name_at, name_length),
        has_external_data=bool(features & _EXTERNAL_DATA_FILE),
        is_encrypted=encryption != 0,
    )


def _backing_file(head: bytes, at: int, length: int) -> str | None:
    # QEMU takes any offset but zero as "there is one", and so an empty name is one too.
    if at == 0:
        return None
    if length > _LONGEST_NAME or at + length > len(head):
        raise ValueError("its qcow2 header names a backing file outside of the header")
    return head[at : at + length].decode(errors="surrogateescape")
