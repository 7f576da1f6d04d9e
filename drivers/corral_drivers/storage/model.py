"""What a pool is asked for and what it shows."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Cause(enum.StrEnum):
    """Why a pool could not do a step."""

    NO_SPACE = "NoSpace"
    """The pool is full."""

    SMALLER_THAN_IMAGE = "SmallerThanImage"
    """The disk is asked for smaller than the image it is a clone of."""

    SHRINK_REFUSED = "ShrinkRefused"
    """The disk is larger than it is asked to be, and a disk never shrinks."""

    IMAGE_MISSING = "ImageMissing"
    """The image that the disk is a clone of is not on this host (yet)."""

    DISK_MISSING = "DiskMissing"
    """The guest had this disk, and it is gone: an empty one in its place would only hide that."""

    POOL_FOREIGN = "PoolForeign"
    """The pool's folder carries another cloud's or host's mark, or none and is not empty."""

    FAILED = "Failed"
    """Anything else: the message has the operating system's own words."""


SECTOR = 512
"""Bytes: a disk is as many whole sectors as it takes to hold the size that was asked for."""


def whole_sectors(size: int) -> int:
    """The size, in bytes, that a disk really gets when this many are asked for."""
    return -(-size // SECTOR) * SECTOR


@dataclass(frozen=True, slots=True, order=True)
class Disk:
    """A disk of a guest: `owner` is the guest's uid, `name` is unique within it, `size` is in bytes.

    `base` is the path of the image that it is a thin clone of (`base_format` its format), None where it starts blank.
    """

    owner: str
    name: str
    size: int
    base: str | None = None
    base_format: str | None = None


class Standing(enum.StrEnum):
    """Whether a disk is where it belongs."""

    IN_PLACE = "InPlace"

    ASTRAY = "Astray"
    """Somebody renamed or deleted its file; the pool still holds it."""

    UNKEPT = "Unkept"
    """It is where it belongs, and the pool does not hold it in another way yet: it would be lost with its name."""


@dataclass(frozen=True, slots=True, order=True)
class Observed:
    """A disk that the pool holds: `path` is where its active layer is or belongs, `size` what the guest sees.

    `allocated` is what it takes, in bytes like `size`.
    """

    owner: str
    name: str
    path: str
    format: str
    size: int
    allocated: int
    base: str | None = None
    standing: Standing = Standing.IN_PLACE


@dataclass(frozen=True, slots=True)
class Capacity:
    """A pool's room in bytes."""

    total: int
    available: int
