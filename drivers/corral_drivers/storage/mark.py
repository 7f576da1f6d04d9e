"""Whose a pool's folder is; `qcow2` asks before everything it does. Blocks; for threads.

The mark is `.corral-pool.json` with the uids of the cloud and the host. An empty folder is nobody's and gets our mark;
so a restarted process knows its pool, and a folder of somebody's files, another cloud's or host's is left alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import tempfile

from corral_drivers import errors
from corral_drivers.storage.model import Cause
from corral_drivers.storage.port import Settings

_MARK = ".corral-pool.json"
_UNFINISHED = f"{_MARK}."


def claim(settings: Settings) -> None:
    """Make sure that the folder is ours. Raises `errors.Rejected` with POOL_FOREIGN."""
    folder = pathlib.Path(settings.folder)
    ours = {"cloud": settings.cloud, "host": settings.host}
    found = _read(folder)
    if found is None:
        folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        # Whose files they are is asked again, because the mark may have come, and files after it, since it was missed.
        found = _read(folder) if any(map(_is_somebodys, os.listdir(folder))) else _write(folder, ours)
    if found is None:
        raise _foreign(settings, "it holds files and has no mark")
    if found != ours:
        raise _foreign(settings, "it carries another cloud's or host's mark")


def _is_somebodys(name: str) -> bool:
    return name != "lost+found" and not name.startswith(_UNFINISHED)


def _read(folder: pathlib.Path) -> object:
    try:
        return json.loads((folder / _MARK).read_bytes())
    except FileNotFoundError:
        return None
    except ValueError:
        return "a mark that can't be read"


def _write(folder: pathlib.Path, mark: dict[str, str]) -> object:
    """Put the mark there, unless another process was first; what is there then."""
    with tempfile.NamedTemporaryFile("w", dir=folder, prefix=_UNFINISHED) as unfinished:
        json.dump(mark, unfinished)
        unfinished.flush()
        os.fsync(unfinished.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(unfinished.name, folder / _MARK)
    return _read(folder)


def _foreign(settings: Settings, why: str) -> errors.Rejected:
    return errors.Rejected(Cause.POOL_FOREIGN, f"the folder {settings.folder} is not this host's pool: {why}")
