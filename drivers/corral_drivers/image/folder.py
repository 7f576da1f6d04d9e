"""The files of an image cache: whole ones under their sum, and the one that is being written. Blocks; for threads.

A held image is `<sha256>.<format>`, read-only, and came to that name by a rename after it was checked. One on its way
is `.fetch-<sha256>`, locked by the process that writes it: where nobody holds the lock, that process is dead, and the
file is waste. Every other name is somebody else's and is neither looked at nor touched.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import pathlib
import re
import threading

from corral_drivers import errors, qcow2_header
from corral_drivers.image import check
from corral_drivers.image.model import Cause, Format, Held

_SHA256 = re.compile(r"[0-9a-f]{64}")
_HELD = re.compile(rf"({_SHA256.pattern})\.(qcow2|raw|blob)")
_PARTIAL = ".fetch-"

_OPENING = threading.Lock()
"""Held while a partial file is made and others are tried for life: two fetches of one process must not mistake each
other's new file, made and not yet locked, for a dead one's."""


def check_sum(sha256: str) -> None:
    """Refuse what is no sha256: it is about to be a file's name. Raises `errors.Rejected` with CHECKSUM_MISMATCH."""
    if not _SHA256.fullmatch(sha256):
        raise errors.Rejected(Cause.CHECKSUM_MISMATCH, f"{sha256[:64]!r} is not a sha256 of 64 hexadecimal digits")


def held(folder: pathlib.Path) -> tuple[Held, ...]:
    """Every whole image in the folder, in the order of the sums."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return ()
    matches = (_HELD.fullmatch(name) for name in sorted(names))
    found = (look(folder, match[1], Format(match[2])) for match in matches if match)
    return tuple(image for image in found if image is not None)


def look(folder: pathlib.Path, sha256: str, declared: Format) -> Held | None:
    """The image as it is held; None where there is none, or where its header says that the disk has lost it."""
    path = folder / f"{sha256}.{declared}"
    try:
        with path.open("rb") as file:
            length = os.fstat(file.fileno()).st_size
            visible = check.virtual_size(declared, file.read(qcow2_header.HEAD_BYTES), length)
    except (FileNotFoundError, errors.Rejected):
        return None
    return Held(sha256=sha256, format=declared, path=str(path), size=length, virtual_size=visible)


class Partial:
    """The file that one fetch writes, with the sha256 of what it was given; locked from `open` to the end."""

    def __init__(self, folder: pathlib.Path, sha256: str) -> None:
        self._folder = folder
        self._path = folder / f"{_PARTIAL}{sha256}"
        self._sum = hashlib.sha256()
        self._descriptor: int | None = None
        self.length = 0

    def open(self) -> None:
        """Make the file, and remove what killed fetches of any sum left in the folder.

        Raises BlockingIOError where another process is at the same sum.
        """
        self._folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        with _OPENING:
            for leftover in self._folder.glob(f"{_PARTIAL}*"):
                _remove_dead(leftover)
            self._descriptor = _locked(self._path, os.O_CREAT)

    @property
    def sha256(self) -> str:
        """The sum of all that was written so far."""
        return self._sum.hexdigest()

    def write(self, chunk: bytes) -> None:
        """Append the chunk to the file and to the sum."""
        view = memoryview(chunk)
        while view:
            view = view[os.write(self._opened, view) :]
        self._sum.update(chunk)
        self.length += len(chunk)

    def head(self) -> bytes:
        """The first bytes of what was written, as many as a header takes."""
        return os.pread(self._opened, qcow2_header.HEAD_BYTES, 0)

    def publish(self, declared: Format) -> None:
        """Make it the held image of its sum: on the disk, read-only, then under its name."""
        os.fchmod(self._opened, 0o444)
        os.fsync(self._opened)
        self._path.rename(self._folder / f"{self.sha256}.{declared}")
        _sync(self._folder)
        self._close()

    def discard(self) -> None:
        """Remove it, if it is ours."""
        if self._descriptor is not None:
            self._path.unlink(missing_ok=True)
            self._close()

    @property
    def _opened(self) -> int:
        if self._descriptor is None:
            raise ValueError("the file is not open")
        return self._descriptor

    def _close(self) -> None:
        os.close(self._opened)
        self._descriptor = None


def _locked(path: pathlib.Path, flags: int = 0) -> int:
    """Open the file and lock it. Raises BlockingIOError where another process has it, or has just done with it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _check_still_at(path, descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _check_still_at(path: pathlib.Path, descriptor: int) -> None:
    # Who had the lock before us may have renamed or removed the file between our open and our lock.
    if not path.exists() or not os.path.samestat(os.fstat(descriptor), path.stat()):
        raise BlockingIOError


def _remove_dead(leftover: pathlib.Path) -> None:
    with contextlib.suppress(BlockingIOError, FileNotFoundError):
        descriptor = _locked(leftover)
        try:
            leftover.unlink(missing_ok=True)
        finally:
            os.close(descriptor)


def _sync(folder: pathlib.Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
