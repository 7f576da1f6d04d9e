"""How a pool of files holds a disk whatever becomes of its name; `qcow2` calls this in threads.

Beside `<pool>/<owner>/<disk>` each disk has a second name, `<pool>/.kept/<owner>/<disk>`, a hard link to the same file.
Renamed or deleted by hand, the file is still there by it, with everything that a living guest writes meanwhile, and
gets its first name back. The second name is given first and taken last, so that no death leaves a disk without it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
from collections.abc import Iterator

_KEPT = ".kept"


def folder(pool: pathlib.Path) -> pathlib.Path:
    """Where the second names are, in a folder an owner as the first ones."""
    return pool / _KEPT


def second(pool: pathlib.Path, path: pathlib.Path) -> pathlib.Path:
    """The second name of the disk at this path of the pool."""
    return folder(pool) / path.relative_to(pool)


def link(file: pathlib.Path, name: pathlib.Path) -> None:
    """Give the file this name as well, unless the name is taken; it is on the disk afterwards."""
    name.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        os.link(file, name, follow_symlinks=False)
    for changed in (name.parent, name.parent.parent):
        sync(changed)


def hold(pool: pathlib.Path, path: pathlib.Path, file: pathlib.Path) -> None:
    """Hold this file as the disk that is, or will be, at this path; where one is held already, it stays that."""
    folder(pool).mkdir(mode=0o700, exist_ok=True)
    link(file, second(pool, path))


def keep(pool: pathlib.Path, path: pathlib.Path) -> None:
    """Hold the disk at this path. What was held in its stead is another file's data: it stays, under a third name."""
    kept = second(pool, path)
    if kept.exists() and not kept.samefile(path):
        kept.rename(kept.with_name(f"{kept.name}.{kept.stat().st_ino}"))
    hold(pool, path, path)


def put_back(pool: pathlib.Path, path: pathlib.Path) -> None:
    """Give the disk its name again, and take the one that somebody gave it within the pool."""
    kept = second(pool, path)
    link(kept, path)
    if path.samefile(kept):
        for stray in _strays(pool, path, kept.stat()):
            stray.unlink(missing_ok=True)


def remove(pool: pathlib.Path, path: pathlib.Path) -> None:
    """Take all names of the disk within the pool, and the folders that are empty then.

    Its second name goes last: until nothing else is left, it says that there is something to remove.
    """
    kept = second(pool, path)
    path.unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):
        for stray in _strays(pool, path, kept.stat()):
            stray.unlink(missing_ok=True)
    for former in _formers(kept):
        former.unlink(missing_ok=True)
    _remove_if_empty(path.parent)
    kept.unlink(missing_ok=True)
    _remove_if_empty(kept.parent)


def sweep(pool: pathlib.Path) -> None:
    """Remove the folders of second names that a process which died left empty."""
    with contextlib.suppress(FileNotFoundError), os.scandir(folder(pool)) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                _remove_if_empty(pathlib.Path(entry.path))


def _strays(pool: pathlib.Path, path: pathlib.Path, kept: os.stat_result) -> Iterator[pathlib.Path]:
    """Other names of a held file in the pool and its owners' folders. Looked for only where the file has one."""
    known = 1 + path.exists()
    if kept.st_nlink <= known:
        return
    with os.scandir(pool) as entries:
        members = [entry for entry in entries if not entry.name.startswith(".")]
    for entry in members:
        inside = _files(entry.path) if entry.is_dir(follow_symlinks=False) else [entry]
        for file in inside:
            found = pathlib.Path(file.path)
            if file.inode() == kept.st_ino and found != path and file.stat(follow_symlinks=False).st_dev == kept.st_dev:
                yield found


def _files(where: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(where) as entries:
            return list(entries)
    except FileNotFoundError:
        return []


def _formers(kept: pathlib.Path) -> list[pathlib.Path]:
    prefix = f"{kept.name}."
    files = [pathlib.Path(entry.path) for entry in _files(str(kept.parent))]
    return [file for file in files if file.name.startswith(prefix) and file.name.removeprefix(prefix).isdigit()]


def _remove_if_empty(where: pathlib.Path) -> None:
    try:
        where.rmdir()
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise


def sync(path: pathlib.Path) -> None:
    """Have a file, or the names in a folder, on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
