"""The kernel's inotify(7), for rooms whose things are files: what anybody does to the names in a folder.

`storage` and `seed` each have their `Watches`. A folder that goes and comes again is armed anew by the next look at it:
arming costs a microsecond where it is armed already.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import functools
import os
import pathlib
import struct
from collections.abc import Callable

_EVENT = struct.Struct("=iIII")
"""inotify_event: number of the watch, what happened, cookie, octets of the name that follows."""

_CLOSE_WRITE, _MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x8, 0x40, 0x80, 0x100, 0x200
_OVERFLOW, _IGNORED, _ONLY_DIRECTORY, _IS_DIRECTORY = 0x4000, 0x8000, 0x01000000, 0x40000000
_NAMES = _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _ONLY_DIRECTORY

_READ = 64 * 1024
_READS_AT_ONCE = 16

_NOT_HEARD = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENOSPC})


class Watch:
    """Calls `heard(path, is_folder)` on the event loop for each name that comes, goes or changes in an armed folder.

    `missed` is called where the kernel had to drop some. Raises OSError where the kernel gives no watch at all.
    """

    def __init__(self, heard: Callable[[pathlib.Path, bool], None], missed: Callable[[], None]) -> None:
        self._heard = heard
        self._missed = missed
        self._folders: dict[int, pathlib.Path] = {}
        self._loop = asyncio.get_running_loop()
        self._descriptor = _checked(_libc().inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        self._loop.add_reader(self._descriptor, self._read)

    def arm(self, folder: pathlib.Path, *, contents: bool = False) -> None:
        """Hear of this folder from now on, and with `contents` of what is written in it; from any thread.

        A folder that is not there is not heard of, nor one more than the kernel allows (`fs.inotify.max_user_watches`):
        what happens in it only looking tells.
        """
        if self._descriptor < 0:
            return
        mask = _NAMES | (_CLOSE_WRITE if contents else 0)
        try:
            number = _checked(_libc().inotify_add_watch(self._descriptor, os.fsencode(folder), mask))
        except OSError as error:
            if error.errno not in _NOT_HEARD:
                raise
        else:
            self._folders[number] = folder

    def close(self) -> None:
        """Hear no more."""
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def _read(self) -> None:
        for _ in range(_READS_AT_ONCE):
            try:
                data = os.read(self._descriptor, _READ)
            except BlockingIOError:
                return
            start = 0
            while start < len(data):
                number, happened, _, length = _EVENT.unpack_from(data, start)
                start += _EVENT.size + length
                self._one(number, happened, data[start - length : start])

    def _one(self, number: int, happened: int, name: bytes) -> None:
        if happened & _OVERFLOW:
            self._missed()
        elif happened & _IGNORED:
            self._folders.pop(number, None)
        elif folder := self._folders.get(number):
            self._heard(folder / os.fsdecode(name.rstrip(b"\0")), bool(happened & _IS_DIRECTORY))


class Watches:
    """The watches of one driver: all of them hear of what it arms."""

    def __init__(self) -> None:
        self._watches: list[Watch] = []

    def add(self, heard: Callable[[pathlib.Path, bool], None], missed: Callable[[], None]) -> Callable[[], None]:
        """Make one; what is returned ends it."""
        made = Watch(heard, missed)
        self._watches.append(made)

        def end() -> None:
            made.close()
            if made in self._watches:
                self._watches.remove(made)

        return end

    def arm(self, folder: pathlib.Path, *, contents: bool = False) -> None:
        """See `Watch.arm`."""
        for watch in tuple(self._watches):
            watch.arm(folder, contents=contents)


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _checked(answer: int) -> int:
    if answer < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return answer
