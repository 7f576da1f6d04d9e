"""Which owners may have a seed: their names become names of files. Pure; for both implementations."""

from __future__ import annotations

import re

from corral_drivers import errors
from corral_drivers.seed.model import Cause

_SAFE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


def is_safe(owner: str) -> bool:
    """Whether this is one component of a path, and neither hidden nor a step upwards."""
    return _SAFE.fullmatch(owner) is not None


def check(owner: str) -> None:
    """Raise `errors.Rejected` for an owner that `is_safe` does not take."""
    if not is_safe(owner):
        raise errors.Rejected(Cause.FAILED, f"{owner[:64]!r} can't be the owner of a seed")
