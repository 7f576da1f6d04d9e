"""Small text files as an ISO 9660 image that says `cidata`, with Rock Ridge and Joliet names, and back.

The same files make the same bytes. pycdlib stamps the time of day on everything it makes and has no way to be told
another, so the stamps are overwritten afterwards, where ECMA-119 (8.4.26, 9.1.5) and RRIP (4.1.6, `TF`) put them.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Mapping

import pycdlib
from pycdlib import pycdlibexception

_SECTOR = 2048
_LABEL = "cidata"
_VOLUME_DATES = slice(813, 813 + 4 * 17)
_VOLUME_DATE = b"2000010100000000\x00"
_NEVER = b"0" * 16 + b"\x00"
_RECORD_DATE = bytes((100, 1, 1, 0, 0, 0, 0))
_PRIMARY, _SUPPLEMENTARY, _TERMINATOR = 1, 2, 255


def pack(files: Mapping[str, str]) -> bytes:
    """The image of these files, by name. Raises ValueError for a text that UTF-8 can't hold."""
    image = pycdlib.PyCdlib()
    image.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident=_LABEL)
    try:
        for name, text in files.items():
            content = text.encode()
            plain = name.replace("-", "_").upper()
            image.add_fp(
                io.BytesIO(content),
                len(content),
                f"/{plain}.;1",
                rr_name=name,
                joliet_path=f"/{name}",
                file_mode=0o100400,
            )
        written = io.BytesIO()
        image.write_fp(written)
    finally:
        image.close()
    return _without_dates(written.getvalue())


def unpack(image: bytes, names: tuple[str, ...]) -> dict[str, str]:
    """The texts of these files. Raises ValueError for what is no image or lacks one of them."""
    opened = pycdlib.PyCdlib()
    try:
        opened.open_fp(io.BytesIO(image))
        try:
            return {name: _read(opened, name) for name in names}
        finally:
            opened.close()
    except (pycdlibexception.PyCdlibException, struct.error, LookupError, TypeError, AttributeError) as error:
        raise ValueError("it is not an ISO image with a seed") from error


def _read(image: pycdlib.PyCdlib, name: str) -> str:
    content = io.BytesIO()
    image.get_file_from_iso_fp(content, joliet_path=f"/{name}")
    return content.getvalue().decode()


def _without_dates(image: bytes) -> bytes:
    pinned = bytearray(image)
    for descriptor in _descriptors(image):
        pinned[descriptor + _VOLUME_DATES.start : descriptor + _VOLUME_DATES.stop] = (
            _VOLUME_DATE * 2 + _NEVER + _VOLUME_DATE
        )
        root = descriptor + 156
        _pin_record(pinned, root)
        extent, length = struct.unpack_from("<I4xI", image, root + 2)
        for record in _records(image, extent * _SECTOR, length):
            _pin_record(pinned, record)
    return bytes(pinned)


def _descriptors(image: bytes) -> Iterator[int]:
    """Where the volume descriptors stand that have a directory tree."""
    at = 16 * _SECTOR
    while image[at] != _TERMINATOR:
        if image[at] in (_PRIMARY, _SUPPLEMENTARY):
            yield at
        at += _SECTOR


def _records(image: bytes, at: int, length: int) -> Iterator[int]:
    """Where the records of a directory stand; none crosses a sector, and the rest of each sector is zeros."""
    end = at + length
    while at < end:
        if image[at]:
            yield at
            at += image[at]
        else:
            at += _SECTOR - at % _SECTOR


def _pin_record(image: bytearray, at: int) -> None:
    image[at + 18 : at + 25] = _RECORD_DATE
    name_length = image[at + 32]
    entry = at + 33 + name_length + (1 - name_length % 2)
    while entry + 4 <= at + image[at] and image[entry + 2]:
        if image[entry : entry + 2] == b"TF":
            stamps = (image[entry + 2] - 5) // len(_RECORD_DATE)
            image[entry + 5 : entry + image[entry + 2]] = _RECORD_DATE * stamps
        entry += image[entry + 2]
