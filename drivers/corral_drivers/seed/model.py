"""What a guest is told at its first boot, and where it is kept."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Cause(enum.StrEnum):
    """Why a seed could not be written."""

    NO_SPACE = "NoSpace"
    """The host's disk is full."""

    FAILED = "Failed"
    """Anything else: the message has the operating system's own words."""


def everything(via: str) -> str:
    """The prefix that a default route through this gateway is for."""
    return "::/0" if ":" in via else "0.0.0.0/0"


@dataclass(frozen=True, slots=True, order=True)
class Route:
    """A way out: `to` is `default` or a prefix, `via` a gateway that is on the link whatever the prefix says.

    The prefix of everything, in the gateway's family, is the same as `default` and becomes it.
    """

    to: str
    via: str

    def __post_init__(self) -> None:
        if self.to == everything(self.via):
            object.__setattr__(self, "to", "default")


@dataclass(frozen=True, slots=True)
class Nic:
    """One interface as the guest should configure it; `addresses` are with their length, such as `10.77.0.5/32`."""

    name: str
    mac: str
    mtu: int
    addresses: tuple[str, ...]
    routes: tuple[Route, ...]
    dns_servers: tuple[str, ...] = ()
    search_domains: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Seed:
    """A NoCloud seed: meta-data, user-data and network-config (version 2) as values.

    `owner` is the guest's uid. A guest that sees another `instance_id` sets itself up anew. `user_data` is what the
    tenant wrote, as it is; the keys go into the meta-data (`public-keys`), so that the two never need merging.
    """

    owner: str
    instance_id: str
    hostname: str
    nics: tuple[Nic, ...]
    ssh_authorized_keys: tuple[str, ...] = ()
    user_data: str = ""
