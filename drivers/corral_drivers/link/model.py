"""What the links of a host are asked for and what they show."""

from __future__ import annotations

import enum
from dataclasses import dataclass

HOST_MAC = "ee:ee:ee:ee:ee:ee"
"""The host's end of every tap, the same on every host: a guest that moves keeps its gateway's MAC."""

GATEWAY6 = "fe80::1"
"""The IPv6 gateway of every guest, on each tap: of link-local scope, so that the same one may be on all."""


class Cause(enum.StrEnum):
    """Why a link could not be made."""

    NAME_TAKEN = "NameTaken"
    """An interface that is not ours has this name."""

    UNSUPPORTED = "Unsupported"
    """The kernel has no tun driver, or the agent no right to use it."""

    FAILED = "Failed"
    """Anything else: the message has the kernel's own words."""


@dataclass(frozen=True, slots=True, order=True)
class Tap:
    """A guest's tap: `owner` is the guest's uid, `name` the interface (15 characters at most)."""

    name: str
    owner: str
    mtu: int


@dataclass(frozen=True, slots=True, order=True)
class Observed:
    """A tap of ours as it is. `carrier`: a guest holds its other end. `gateway`: it has the IPv6 gateway's address, or
    the host has no IPv6.
    """

    name: str
    owner: str
    mtu: int
    mac: str
    up: bool
    carrier: bool
    gateway: bool = True
