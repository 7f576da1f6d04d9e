"""How a tap of ours is marked, and what a tap may be asked for. Pure; every implementation of the port uses it."""

from __future__ import annotations

import re

from corral_drivers import errors
from corral_drivers.link.model import Cause, Tap
from corral_drivers.link.port import Settings

_LONGEST_NAME, _LONGEST_MARK = 15, 255
_MTU = range(68, 65522)
"""What the tun driver takes for a tap: from IPv4's least (RFC 791) to the largest frame."""

_NAME = re.compile(r"[^\s/:%]+")
"""The kernel's own rule (`dev_valid_name`), and no `%`, which the tun driver would take as a pattern."""


def mark(settings: Settings, owner: str) -> str:
    """The alias of the owner's taps; of no owner, what every tap of ours starts with."""
    return f"corral:{settings.cloud}:{settings.host}:{owner}"


def check(tap: Tap, settings: Settings) -> None:
    """Raise Rejected for what no kernel would take."""
    if not _NAME.fullmatch(tap.name) or tap.name in {".", ".."} or len(tap.name.encode()) > _LONGEST_NAME:
        raise errors.Rejected(
            Cause.FAILED,
            f"make tap {tap.name}: the name of an interface has 1 to {_LONGEST_NAME} characters, "
            "and neither blanks nor any of / : %",
        )
    if tap.mtu not in _MTU:
        raise errors.Rejected(
            Cause.FAILED, f"make tap {tap.name}: its MTU of {tap.mtu} is not from {_MTU[0]} to {_MTU[-1]}"
        )
    if not tap.owner or len(mark(settings, tap.owner).encode()) > _LONGEST_MARK:
        raise errors.Rejected(
            Cause.FAILED, f"make tap {tap.name}: its mark has no owner or is over {_LONGEST_MARK} octets long"
        )


def taken(name: str, alias: str) -> errors.Rejected:
    """The refusal to touch an interface that is not this owner's."""
    words = f"its alias is {alias!r}" if alias else "it carries no mark"
    return errors.Rejected(Cause.NAME_TAKEN, f"make tap {name}: an interface of this name is there and {words}")
