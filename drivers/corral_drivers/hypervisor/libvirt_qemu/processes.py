"""Which process a guest is; `domains` asks when it looks at one.

libvirt's API does not tell. Its daemon writes `<run>/qemu/<name>.pid`, where `<run>` is the folder of the daemon's
socket; QEMU has the domain's uuid among its arguments, which proves that the file is not a stale one.
"""

from __future__ import annotations

import contextlib
import urllib.parse
from pathlib import Path

_SYSTEM = Path("/run/libvirt")


def find(uri: str, name: str, uuid: str) -> int | None:
    """The guest's pid, None where it can't be known: on another machine, or in a session's daemon."""
    folder = _run_folder(uri)
    if folder is None:
        return None
    with contextlib.suppress(OSError, ValueError):
        pid = int((folder / "qemu" / f"{name}.pid").read_text())
        if uuid.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
            return pid
    return None


def _run_folder(uri: str) -> Path | None:
    parts = urllib.parse.urlsplit(uri)
    if parts.scheme not in ("qemu", "qemu+unix") or parts.netloc or parts.path != "/system":
        return None
    socket = urllib.parse.parse_qs(parts.query).get("socket")
    return Path(socket[0]).parent if socket else _SYSTEM
