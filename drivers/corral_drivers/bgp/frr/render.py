"""Write what a speaker says as FRR's configuration. Pure; the drivers call it, and hold it against what FRR shows.

Only statements are written that `show running-config` echoes (`capability extended-nexthop` is not, and comes by itself
with an interface): what is desired is read from this text by the same parser as what is observed.

What it says. A host tells only what is its own, by the empty AS path, so that it is no way from one spine to another;
of that only what the prefix lists let out. It takes what it is told, default routes too, but nothing that is its own,
nor link-local (the guests' gateway) or loopback addresses. Neighbors of different ASes share the load
(`multipath-relax`). With graceful restart, a neighbor goes on sending while bgpd is away; for as long it would also go
on where the host died without its link going down, so the time for it is short. `coalesce-time` is how many
milliseconds bgpd waits for more before it tells a new neighbor everything; its own second is a second without routes.
Zebra keeps a group of next hops that nobody uses for a second only: FRR 8.4 would take one again that lost a member
when a link went down, and have one way then instead of two.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass

import jinja2

from corral_drivers.bgp import admit, lines, marks
from corral_drivers.bgp.model import Desired, Neighbor, Speaker

RESTART_TIME = 30
"""Seconds in which bgpd is to be back after its end, while neighbors go on by what it told."""

_RETRY = 1  # seconds between two tries to connect; FRR's own default is two minutes
_MOST_PATHS = 8
_DEFAULT_TIMERS = (60, 180)  # not echoed

_REFUSED = {
    4: ("0.0.0.0/8 le 32", "127.0.0.0/8 le 32", "169.254.0.0/16 le 32", "224.0.0.0/3 le 32"),
    6: ("::/96 le 128", "fe80::/10 le 128", "ff00::/8 le 128"),
}
"""This host, loopback, link-local, multicast and reserved (RFC 6890)."""

_SILENT = "frr defaults traditional\nlog syslog informational\nservice integrated-vtysh-config\n"

_TEMPLATE = jinja2.Environment(
    loader=jinja2.PackageLoader("corral_drivers.bgp.frr", ""),
    autoescape=False,  # noqa: S701 - no markup; `admit` lets through no value with a space or a line's end
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
).get_template("frr.conf.j2")


@dataclass(frozen=True, slots=True)
class Family:
    """What differs between IPv4 and IPv6. `exported` are entries of a prefix list: action, and what follows."""

    number: int
    ip: str
    exported: tuple[tuple[str, str], ...]
    refused: tuple[str, ...]
    networks: tuple[str, ...]
    neighbors: tuple[Neighbor, ...]


def desired(speaker: Speaker | None, mark: str, *, take_over: bool) -> Desired:
    """What zebra, bgpd and their file should have; None: nothing of ours. Raises `errors.Rejected` (INVALID)."""
    if speaker is None:
        return Desired((), (), _SILENT, mark, take_over)
    text = render(speaker, mark)
    every = lines.read(text)
    zebra = tuple(path for path in every if path[0].startswith(("interface ", "zebra ")))
    return Desired(zebra, tuple(path for path in every if path not in zebra), text, mark, take_over)


def render(speaker: Speaker, mark: str) -> str:
    """The whole configuration, as a file that FRR starts from. Raises `errors.Rejected` (INVALID)."""
    admit.check(speaker)
    return _TEMPLATE.render(
        {
            "speaker": speaker,
            "mark": mark,
            "families": tuple(_family(speaker, number) for number in (4, 6)),
            "export": marks.EXPORT,
            "import": marks.IMPORT,
            "refuse": "corral-refuse",
            "own": "corral-own",
            "restart_time": RESTART_TIME,
            "retry": _RETRY,
            "most_paths": _MOST_PATHS,
            "default_timers": _DEFAULT_TIMERS,
        }
    )


def _family(speaker: Speaker, number: int) -> Family:
    networks = tuple(
        str(network) for one in speaker.addresses if (network := ipaddress.ip_network(one)).version == number
    )
    blocks = tuple(one for one in speaker.blocks if ipaddress.ip_network(one).version == number)
    return Family(
        number=number,
        ip="ip" if number == 4 else "ipv6",
        # FRR takes no entry twice.
        exported=tuple(dict.fromkeys(_exported(speaker, networks, blocks, number))),
        refused=tuple(dict.fromkeys((*_REFUSED[number], *networks, *blocks))),
        networks=networks,
        neighbors=tuple(one for one in speaker.neighbors if _speaks(one, number)),
    )


def _exported(
    speaker: Speaker, networks: tuple[str, ...], blocks: tuple[str, ...], number: int
) -> Iterator[tuple[str, str]]:
    """The first entry that fits decides, and what fits none stays inside."""
    for prefix in (*networks, *blocks):
        yield "permit", prefix
    for prefix in blocks:
        network = ipaddress.ip_network(prefix)
        if network.prefixlen < network.max_prefixlen:
            yield "deny", f"{prefix} ge {network.prefixlen + 1}"
    for prefix in speaker.pools:
        network = ipaddress.ip_network(prefix)
        if network.version == number:
            single = network.prefixlen == network.max_prefixlen
            yield "permit", prefix if single else f"{prefix} ge {network.max_prefixlen}"


def _speaks(neighbor: Neighbor, number: int) -> bool:
    """Over an interface both families are told, with its link-local address as the way; else an address its own one."""
    return not neighbor.address or ipaddress.ip_address(neighbor.address).version == number
