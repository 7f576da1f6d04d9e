"""A pool of qcow2 files in a folder; the composition root makes one a pool and host.

A disk is `<folder>/<owner>/<name>.qcow2`, and a folder is a pool of ours by its mark (see `mark`): a restarted process
needs no more than these names, and those by which `keep` finds a disk that was renamed. A disk in the making stands in
`<folder>/.partial`, and comes to its names by hard links, which never replace a disk that is there. One process works
on a pool at a time: the host's agent.

What exists is never written over: `Create` of a disk that is there leaves it, whatever is in it. Sizes and base are
read from the header; `qemu-img` only makes and grows.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import pathlib
import stat
import subprocess
import threading
from collections.abc import Callable
from typing import TypeVar

from corral_drivers import errors, inotify, qcow2_header
from corral_drivers.storage import keep, mark, names
from corral_drivers.storage.model import Capacity, Cause, Disk, Observed, Standing, whole_sectors
from corral_drivers.storage.plan import Create, Grow, Keep, PutBack, Remove, Step
from corral_drivers.storage.port import Settings

_AT_ONCE = 4
_PARTIAL = ".partial"
_SUFFIX = ".qcow2"

ResultT = TypeVar("ResultT")


class Qcow2:
    """Thin clones and blank disks as qcow2 files. `deadline`, in seconds, is how long one call of qemu-img may take."""

    format = "qcow2"

    def __init__(self, settings: Settings, *, deadline: float = 30.0) -> None:
        self._settings = settings
        self._folder = pathlib.Path(settings.folder)
        self._deadline = deadline
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._numbers = itertools.count()
        self._sweeping = threading.Lock()
        self._is_swept = False
        self._watches = inotify.Watches()

    def path(self, owner: str, name: str) -> str:
        return str(self._path(owner, name))

    async def observe(self, owner: str) -> tuple[Observed, ...]:
        names.check(owner)
        return await self._in_pool(f"observe the disks of {owner}", lambda: tuple(self._observe(owner)))

    async def owners(self) -> frozenset[str]:
        return await self._in_pool("list the pool", lambda: frozenset(self._owners()))

    async def apply(self, step: Step) -> None:
        match step:
            case Create(disk):
                names.check(disk.owner, disk.name)
                await self._in_pool(f"create disk {disk.owner}/{disk.name}", lambda: self._create(disk))
            case Grow(owner, name, size):
                path = self._path(owner, name)
                await self._in_pool(f"grow disk {owner}/{name}", lambda: self._grow(path, whole_sectors(size)))
            case Remove(owner, name):
                path = self._path(owner, name)
                await self._in_pool(f"remove disk {owner}/{name}", lambda: keep.remove(self._folder, path))
            case PutBack(owner, name):
                path = self._path(owner, name)
                await self._in_pool(f"put back disk {owner}/{name}", lambda: keep.put_back(self._folder, path))
            case Keep(owner, name):
                path = self._path(owner, name)
                await self._in_pool(f"keep disk {owner}/{name}", lambda: keep.keep(self._folder, path))

    async def capacity(self) -> Capacity:
        return await self._in_pool("measure the pool", self._capacity)

    async def watch(self, changed: Callable[[str], None], missed: Callable[[], None]) -> Callable[[], None]:
        def heard(path: pathlib.Path, is_folder: bool) -> None:
            in_pool = path.parent == self._folder
            owner = path.name if in_pool else path.parent.name
            if names.is_safe(owner) and (is_folder if in_pool else path.suffix == _SUFFIX):
                changed(owner)

        try:
            return self._watches.add(heard, missed)
        except OSError as error:
            raise errors.Unavailable(Cause.FAILED, f"can't watch the pool: {error.strerror}") from error

    async def _in_pool(self, what: str, call: Callable[[], ResultT]) -> ResultT:
        """Do it in a thread, when the folder is ours, and say what was in the way."""

        def claimed() -> ResultT:
            mark.claim(self._settings)
            self._sweep()
            return call()

        async with self._slots:
            try:
                return await asyncio.to_thread(claimed)
            except OSError as error:
                cause = Cause.NO_SPACE if error.errno in (errno.ENOSPC, errno.EDQUOT) else Cause.FAILED
                raise errors.Unavailable(cause, f"can't {what}: {error.strerror}") from error

    def _path(self, owner: str, name: str) -> pathlib.Path:
        names.check(owner, name)
        return self._folder / owner / f"{name}{_SUFFIX}"

    def _observe(self, owner: str) -> list[Observed]:
        folder = self._folder / owner
        self._watches.arm(self._folder)
        self._watches.arm(folder)
        held = {path.name: path.stat() for path in _disks(keep.folder(self._folder) / owner)}
        there = {path.name: path.stat() for path in _disks(folder)}
        # A held file under another name is not another disk.
        strays = {
            name
            for name, found in there.items()
            if name not in held and any(os.path.samestat(found, one) for one in held.values())
        }
        return [
            self._look(folder / name, owner, _standing(there.get(name), held.get(name)))
            for name in sorted(held.keys() | there.keys() - strays)
        ]

    def _look(self, path: pathlib.Path, owner: str, standing: Standing) -> Observed:
        file = keep.second(self._folder, path) if standing is Standing.ASTRAY else path
        header = _header(file)
        return Observed(
            owner=owner,
            name=path.stem,
            path=str(path),
            format="qcow2",
            size=header.virtual_size,
            allocated=file.stat().st_blocks * 512,
            base=header.backing_file,
            standing=standing,
        )

    def _owners(self) -> set[str]:
        return {owner for folder in (self._folder, keep.folder(self._folder)) for owner in _owners(folder)}

    def _capacity(self) -> Capacity:
        room = os.statvfs(self._folder)
        return Capacity(total=room.f_blocks * room.f_frsize, available=room.f_bavail * room.f_frsize)

    def _create(self, disk: Disk) -> None:
        path = self._path(disk.owner, disk.name)
        if path.exists():
            return
        if keep.second(self._folder, path).exists():
            keep.put_back(self._folder, path)
            return
        if disk.base is not None:
            _check_base(disk, disk.base)
        partial = self._partial()
        try:
            self._qemu_img(*_creation(disk, partial))
            partial.chmod(0o600)
            keep.sync(partial)
            keep.hold(self._folder, path, partial)
            keep.link(partial, path)
        finally:
            partial.unlink(missing_ok=True)

    def _grow(self, path: pathlib.Path, size: int) -> None:
        if not path.exists():
            raise errors.Unavailable(Cause.FAILED, f"can't grow disk {path.stem}: it is not there")
        have = _header(path).virtual_size
        if have > size:
            raise errors.Rejected(Cause.SHRINK_REFUSED, f"disk {path.stem} has {have} bytes and can't shrink to {size}")
        if have < size:
            self._qemu_img("resize", "-q", "-f", "qcow2", "--", str(path), str(size))
            keep.sync(path)

    def _partial(self) -> pathlib.Path:
        """A name for a disk in the making."""
        folder = self._folder / _PARTIAL
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder / f"{os.getpid()}-{next(self._numbers)}{_SUFFIX}"

    def _sweep(self) -> None:
        """Clear away, once, what a process before us did not finish."""
        with self._sweeping:
            if not self._is_swept:
                for leftover in (self._folder / _PARTIAL).glob("*"):
                    leftover.unlink(missing_ok=True)
                keep.sweep(self._folder)
                self._is_swept = True

    def _qemu_img(self, *arguments: str) -> None:
        command = ["qemu-img", *arguments]
        try:
            subprocess.run(  # noqa: S603 - a list of arguments, of names that were checked
                command,
                check=True,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=self._deadline,
                env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
            )
        except FileNotFoundError as error:
            said = "qemu-img is not installed (Debian: qemu-utils)"
            raise errors.Unavailable(Cause.FAILED, said) from error
        except subprocess.TimeoutExpired as error:
            said = f"qemu-img {arguments[0]} did not end within {self._deadline:g} seconds"
            raise errors.Unavailable(Cause.FAILED, said) from error
        except subprocess.CalledProcessError as error:
            raise _failed(arguments[0], error.stderr.decode(errors="replace")) from error


def _creation(disk: Disk, target: pathlib.Path) -> list[str]:
    # `-u`: qemu-img need not open the base, because we have read its header, and must not, because it would probe.
    source = ["-u", "-b", disk.base, "-F", disk.base_format] if disk.base and disk.base_format else []
    return ["create", "-q", "-f", "qcow2", *source, "--", str(target), str(whole_sectors(disk.size))]


def _check_base(disk: Disk, base: str) -> None:
    if disk.base_format not in ("qcow2", "raw") or not base.startswith("/"):
        raise errors.Rejected(
            Cause.FAILED,
            f"disk {disk.name} can't be a clone: its image needs an absolute path, and format qcow2 or raw",
        )
    try:
        size = _header(pathlib.Path(base)).virtual_size if disk.base_format == "qcow2" else os.stat(base).st_size
    except FileNotFoundError as error:
        raise errors.NotReady(
            Cause.IMAGE_MISSING, f"disk {disk.name} waits for its image, which is not on this host yet"
        ) from error
    if whole_sectors(disk.size) < size:
        raise errors.Rejected(
            Cause.SMALLER_THAN_IMAGE, f"disk {disk.name} has {disk.size} bytes, fewer than the {size} of its image"
        )


def _owners(folder: pathlib.Path) -> list[str]:
    """Whose folders with disks are in this one."""
    try:
        with os.scandir(folder) as entries:
            folders = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []
    return [name for name in folders if names.is_safe(name) and _disks(folder / name)]


def _disks(folder: pathlib.Path) -> list[pathlib.Path]:
    """The files of an owner that are disks, in the order of their names."""
    try:
        entries = sorted(folder.iterdir())
    except FileNotFoundError:
        return []
    return [path for path in entries if path.suffix == _SUFFIX and names.is_safe(path.stem) and _is_file(path)]


def _is_file(path: pathlib.Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except FileNotFoundError:
        return False


def _standing(there: os.stat_result | None, held: os.stat_result | None) -> Standing:
    if there is None:
        return Standing.ASTRAY
    return Standing.IN_PLACE if held is not None and os.path.samestat(there, held) else Standing.UNKEPT


def _header(path: pathlib.Path) -> qcow2_header.Header:
    with path.open("rb") as file:
        head = file.read(qcow2_header.HEAD_BYTES)
    try:
        return qcow2_header.parse(head)
    except ValueError as error:
        raise errors.Unavailable(Cause.FAILED, f"can't read {path.name}: {error}") from error


def _failed(verb: str, stderr: str) -> errors.Unavailable:
    if "No space left on device" in stderr:
        return errors.Unavailable(Cause.NO_SPACE, f"qemu-img {verb}: the pool is full")
    if '"write" lock' in stderr:
        return errors.Unavailable(
            Cause.FAILED, f"qemu-img {verb}: the disk is in use by a running guest; it is done once the guest is off"
        )
    words = stderr.strip().splitlines() or ["no word of why"]
    return errors.Unavailable(Cause.FAILED, f"qemu-img {verb}: {words[-1]}")
