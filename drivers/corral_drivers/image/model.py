"""What the image cache is asked for and what it shows."""

from __future__ import annotations

import enum
import urllib.parse
from dataclasses import dataclass


class Cause(enum.StrEnum):
    """Why an image can't be had."""

    UNREACHABLE = "Unreachable"
    """The server does not answer, or answers with an error of its own (5xx)."""

    NOT_FOUND = "NotFound"
    """The server answers that there is no such file, or not for us (4xx)."""

    CHECKSUM_MISMATCH = "ChecksumMismatch"
    """What came has another sha256 than was asked for."""

    NOT_AN_IMAGE = "NotAnImage"
    """What came is not of the format that was said, or refers to files of the host."""

    TOO_LARGE = "TooLarge"
    """What came is larger than the host accepts."""

    NO_SPACE = "NoSpace"
    """The host's disk is full."""

    FETCHING = "Fetching"
    """On its way."""

    FAILED = "Failed"
    """Anything else: the message has the operating system's own words."""


class Format(enum.StrEnum):
    """What a file must be. `BLOB` is a kernel or an initramfs: checked by its sum alone."""

    QCOW2 = "qcow2"
    RAW = "raw"
    BLOB = "blob"


@dataclass(frozen=True, slots=True, order=True)
class Image:
    """A file by what is in it; the url is only where to look for it."""

    sha256: str
    url: str
    format: Format


@dataclass(frozen=True, slots=True, order=True)
class Held:
    """A file that is in the cache, complete, checked and read-only.

    `size` is what it takes on the disk, `virtual_size` what a guest sees of it, both in bytes.
    """

    sha256: str
    format: Format
    path: str
    size: int
    virtual_size: int


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a fetch is, in bytes; `total` is None where the server did not say."""

    sha256: str
    done: int
    total: int | None


def shown(url: str) -> str:
    """A url as anyone may read it: without user, password, query and fragment, and not longer than a line or two."""
    try:
        parts = urllib.parse.urlsplit(url)
        bare = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    except ValueError:
        bare = "a url that can't be read"
    return bare if len(bare) <= 200 else f"{bare[:199]}…"
