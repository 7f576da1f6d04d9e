"""Whether a file is what it was said to be, told from its first bytes; never by opening what it refers to. Pure."""

from __future__ import annotations

from corral_drivers import errors, qcow2_header
from corral_drivers.image.model import Cause, Format


def virtual_size(declared: Format, head: bytes, length: int) -> int:
    """How many bytes a guest sees of a file with this beginning and this length.

    A raw image and a blob are any bytes. A qcow2 that refers to another file is refused: its guest would read what the
    image's author named, on this host. Raises `errors.Rejected` with NOT_AN_IMAGE.
    """
    if declared is not Format.QCOW2:
        return length
    try:
        header = qcow2_header.parse(head)
    except ValueError as error:
        raise _rejected(str(error)) from error
    if header.backing_file is not None:
        raise _rejected("it has a backing file, and an image must stand alone")
    if header.has_external_data:
        raise _rejected("it keeps its data in another file, and an image must stand alone")
    if header.is_encrypted:
        raise _rejected("it is encrypted, and no guest could read it")
    return header.virtual_size


def _rejected(why: str) -> errors.Rejected:
    return errors.Rejected(Cause.NOT_AN_IMAGE, f"the file is not a usable qcow2 image: {why}")
