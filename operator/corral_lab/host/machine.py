"""This machine's own network: its routes, and what may not overlap them; interfaces by name, here and on hosts.

`management` and `corral_lab.fabric` change the machine's network through it, and refuse a prefix that is taken by it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pyroute2
from pyroute2.netlink import exceptions

from corral_lab import errors
from corral_lab.host import namespace

# pyroute2 opens its socket in another namespace by a short-lived fork, which it ends by SIGTERM: without this, the
# child would run our own handler, and unwind our stack as if the command had been interrupted.
pyroute2.config.disable_mp_signal = True

Prefix = ipaddress.IPv4Network | ipaddress.IPv6Network

AF_INET, AF_INET6 = 2, 10
SCOPE_LINK = 253

_UNICAST, _LOCAL = 1, 2
# Every machine has them, and nobody can ask for them.
_EVERYWHERE: tuple[Prefix, ...] = (
    ipaddress.IPv4Network("127.0.0.0/8"),
    ipaddress.IPv6Network("::1/128"),
    ipaddress.IPv6Network("fe80::/10"),
)


@dataclass(frozen=True, slots=True)
class Route:
    """A route of the machine, in any table: where to, and over which interface ("" where over several or none)."""

    prefix: Prefix
    interface: str


def interface(kind: str, host: namespace.Host) -> str:
    """The machine's end of a cable to a host or a spine: a hash of the names, since it may have 15 characters.

    `kind` is two letters that say which cable it is.
    """
    return f"{kind}-{hashlib.sha256(f'{host.lab}/{host.name}'.encode()).hexdigest()[:10]}"


def overlap(prefix: Prefix, routes: Iterable[Route], ours: Iterable[str]) -> Route | None:
    """The first route, but a default one or one over an interface of `ours`, that shares an address with `prefix`."""
    kept = frozenset(ours)
    alike = (route for route in routes if route.prefix.version == prefix.version)
    for route in sorted(alike, key=lambda route: (int(route.prefix[0]), route.prefix.prefixlen, route.interface)):
        if route.interface not in kept and route.prefix.prefixlen > 0 and route.prefix.overlaps(prefix):
            return route
    return None


def refuse_overlap(prefix: Prefix, routes: Iterable[Route], ours: Iterable[str], *, what: str) -> None:
    """Raises `errors.LabError` where there is an overlap. `what` says what the prefix is."""
    found = overlap(prefix, routes, ours)
    if found is not None:
        where = f" over {found.interface}" if found.interface else ""
        raise errors.LabError(
            f"The {what} {prefix} overlaps the route to {found.prefix}{where} of this machine.",
            next_step="Choose another prefix, or take down the lab that has this one.",
        )


def routes(netlink: Any) -> list[Route]:
    """The machine's routes of all tables, its own addresses among them, without what every machine has."""
    names = {link["index"]: link.get("ifname") for link in netlink.get_links()}
    found = []
    for family, whole in ((AF_INET, "0.0.0.0"), (AF_INET6, "::")):  # noqa: S104 - the default route, no address to listen at
        for route in netlink.get_routes(family=family):
            if route["type"] in {_UNICAST, _LOCAL}:
                prefix = ipaddress.ip_network((route.get("dst") or whole, route["dst_len"]))
                if not any(_within(prefix, known) for known in _EVERYWHERE):
                    found.append(Route(prefix, _over(route, names)))
    return found


def _over(route: Any, names: dict[int, str]) -> str:
    """Over which interface a route goes. One over several is over the first: all of ours are ours."""
    hops = route.get("multipath") or [{}]
    return names.get(route.get("oif") or hops[0].get("oif"), "")


def _within(prefix: Prefix, known: Prefix) -> bool:
    return prefix.version == known.version and known.overlaps(prefix) and prefix.prefixlen >= known.prefixlen


@contextlib.contextmanager
def on_host(host: namespace.Host) -> Iterator[Any]:
    """A netlink socket in the host's network namespace."""
    with pyroute2.NetNS(str(host.network_file), flags=0) as other:
        yield other


def find(netlink: Any, name: str) -> int | None:
    """The index of the interface of that name, or None."""
    found = list(netlink.link_lookup(ifname=name))
    return int(found[0]) if found else None


def index(netlink: Any, name: str) -> int:
    """The same; raises `errors.LabError` where there is none."""
    found = find(netlink, name)
    if found is None:
        raise errors.LabError(f"The interface {name} is not there.", next_step="Try `corral lab up`.")
    return found


def delete(netlink: Any, name: str) -> None:
    """Remove the interface, and with it its peer and every route over it; nothing where there is none."""
    found = find(netlink, name)
    if found is not None:
        try:
            netlink.link("del", index=found)
        except exceptions.NetlinkError as error:
            # The other end was removed meanwhile, and this one with it.
            if error.code != errno.ENODEV:
                raise
