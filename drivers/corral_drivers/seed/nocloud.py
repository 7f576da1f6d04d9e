"""Seeds as NoCloud ISO images in a folder; the composition root makes one a host.

A seed is `<folder>/<owner>.iso`, and that name is all a restarted process needs: the folder is ours, files of other
names in it are not. A seed comes to its name by a rename from `.<owner>.new`, so that a guest which still reads the one
before keeps it whole.
"""

from __future__ import annotations

import asyncio
import errno
import os
import pathlib
from collections.abc import Callable
from typing import TypeVar

from corral_drivers import errors, inotify
from corral_drivers.seed import iso, names, parse, render
from corral_drivers.seed.model import Cause, Seed
from corral_drivers.seed.plan import Remove, Step, Write
from corral_drivers.seed.port import Settings

_SUFFIX = ".iso"
_FILES = (render.META_DATA, render.USER_DATA, render.NETWORK_CONFIG)

ResultT = TypeVar("ResultT")


class NoCloud:
    """Seeds that cloud-init, and anything else that knows NoCloud, finds by the label `cidata`."""

    def __init__(self, settings: Settings) -> None:
        self._folder = pathlib.Path(settings.folder)
        self._watches = inotify.Watches()

    def path(self, owner: str) -> str:
        return str(self._path(owner))

    async def observe(self, owner: str) -> Seed | None:
        path = self._path(owner)
        return await _in_thread(f"read the seed of {owner}", lambda: self._observe(path, owner))

    async def owners(self) -> frozenset[str]:
        return await _in_thread("list the seeds", lambda: frozenset(self._owners()))

    async def apply(self, step: Step) -> None:
        match step:
            case Write(seed):
                path = self._path(seed.owner)
                await _in_thread(f"write the seed of {seed.owner}", lambda: _write(path, _image(seed)))
            case Remove(owner):
                path = self._path(owner)
                await _in_thread(f"remove the seed of {owner}", lambda: _remove(path))

    async def watch(self, changed: Callable[[str], None], missed: Callable[[], None]) -> Callable[[], None]:
        def heard(path: pathlib.Path, _is_folder: bool) -> None:
            if path.suffix == _SUFFIX and names.is_safe(path.stem):
                changed(path.stem)

        try:
            return self._watches.add(heard, missed)
        except OSError as error:
            raise errors.Unavailable(Cause.FAILED, f"can't watch the seeds: {error.strerror}") from error

    def _observe(self, path: pathlib.Path, owner: str) -> Seed | None:
        self._watches.arm(self._folder, contents=True)
        try:
            return parse.seed(owner, iso.unpack(path.read_bytes(), _FILES))
        except (FileNotFoundError, ValueError):
            return None

    def _path(self, owner: str) -> pathlib.Path:
        names.check(owner)
        return self._folder / f"{owner}{_SUFFIX}"

    def _owners(self) -> list[str]:
        try:
            with os.scandir(self._folder) as entries:
                files = [pathlib.PurePath(entry.name) for entry in entries if entry.is_file(follow_symlinks=False)]
        except FileNotFoundError:
            return []
        return [file.stem for file in files if file.suffix == _SUFFIX and names.is_safe(file.stem)]


async def _in_thread(what: str, call: Callable[[], ResultT]) -> ResultT:
    try:
        return await asyncio.to_thread(call)
    except OSError as error:
        cause = Cause.NO_SPACE if error.errno in (errno.ENOSPC, errno.EDQUOT) else Cause.FAILED
        raise errors.Unavailable(cause, f"can't {what}: {error.strerror}") from error


def _image(seed: Seed) -> bytes:
    try:
        return iso.pack(render.texts(seed))
    except UnicodeEncodeError as error:
        raise errors.Rejected(Cause.FAILED, f"the seed of {seed.owner} has text that is no Unicode") from error


def _write(path: pathlib.Path, image: bytes) -> None:
    path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    unfinished = _unfinished(path)
    try:
        unfinished.unlink(missing_ok=True)
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(image)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def _remove(path: pathlib.Path) -> None:
    path.unlink(missing_ok=True)
    _unfinished(path).unlink(missing_ok=True)


def _unfinished(path: pathlib.Path) -> pathlib.Path:
    return path.with_name(f".{path.stem}.new")
