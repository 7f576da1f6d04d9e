"""Whether a file is what it was said to be, told from its first bytes; never by opening what it refers to. Pure."""

from __future__ import annotations

from corral_drivers import errors, qcow2_header
from corral_drivers.image.model import Cause, Format

LARGEST_DISK = 2**50
"""Bytes, 1 PiB: a qcow2 file of a few bytes can say that it is as large as it likes."""


def virtual_size(declared: Format, head: bytes, length: int) -> int:
    """How many bytes a guest sees of a file with this beginning and this length.

    A blob is any bytes, and so is a raw image, unless it says of itself that it is a qcow2. A qcow2 that refers to
    another file is refused: its guest would read what the image's author named, on this host. Raises `errors.Rejected`
    with NOT_AN_IMAGE or TOO_LARGE.
    """
    if declared is Format.RAW and qcow2_header.is_qcow2(head):
        raise errors.Rejected(Cause.NOT_AN_IMAGE, "the file is not a raw image: it is a qcow2 file, say format: qcow2")
    if declared is not Format.QCOW2:
        return length
    try:
        header = qcow2_header.scrutinize(head, length)
    except ValueError as error:
        raise _rejected(str(error)) from error
    if header.backing_file is not None:
        raise _rejected("it has a backing file, and an image must stand alone")
    if header.has_external_data:
        raise _rejected("it keeps its data in another file, and an image must stand alone")
    if header.is_encrypted:
        raise _rejected("it is encrypted, and no guest could read it")
    if header.virtual_size > LARGEST_DISK:
        raise errors.Rejected(
            Cause.TOO_LARGE,
            f"a guest would see {header.virtual_size} bytes of the image, and no disk is larger than {LARGEST_DISK}",
        )
    return header.virtual_size


def _rejected(why: str) -> errors.Rejected:
    return errors.Rejected(Cause.NOT_AN_IMAGE, f"the file is not a usable qcow2 image: {why}")
