"""Which owners and disks a pool takes: their names become names of files. Pure; for both implementations."""

from __future__ import annotations

import re

from corral_drivers import errors
from corral_drivers.storage.model import Cause

_SAFE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


def is_safe(name: str) -> bool:
    """Whether this is one component of a path, and neither hidden nor a step upwards."""
    return _SAFE.fullmatch(name) is not None


def check(*names: str) -> None:
    """Raise `errors.Rejected` for a name that `is_safe` does not take."""
    for name in names:
        if not is_safe(name):
            raise errors.Rejected(Cause.FAILED, f"{name[:64]!r} can't be a disk's or an owner's name in a pool")
