"""What a speaker may ask for: only what FRR takes, and echoes as we wrote it, or a plan never ends. Pure."""

from __future__ import annotations

import ipaddress
import re

from corral_drivers import errors
from corral_drivers.bgp.model import Cause, Neighbor, Speaker

_INTERFACE = re.compile(r"[A-Za-z][-.:_0-9A-Za-z]{0,14}")
_MOST_ASN = 4_294_967_294


def check(speaker: Speaker) -> None:
    """Raises `errors.Rejected` (INVALID), which names what is asked and why it can't be."""
    _asn(speaker.asn)
    for address in speaker.addresses:
        _canonical(address, str(_address(address)))
    if not speaker.router_id:
        raise _invalid("addresses: none is IPv4, and the first IPv4 one is the router id")
    for prefix in (*speaker.blocks, *speaker.pools):
        _canonical(prefix, str(_network(prefix)))
    names = [neighbor.name for neighbor in speaker.neighbors]
    if len(set(names)) < len(names):
        raise _invalid(f"neighbors: one is named twice in {', '.join(names)}")
    for neighbor in speaker.neighbors:
        _neighbor(neighbor)
        if neighbor.asn == speaker.asn:
            # What another host of the same AS tells has no path either, and would be told on.
            raise _invalid(f"neighbor {neighbor.name}: it has the host's own AS {speaker.asn}")
    # RFC 4271, 4.2: a hold time is none or at least three seconds.
    if not 1 <= speaker.keepalive <= speaker.hold <= 65535 or speaker.hold < 3:
        raise _invalid(
            f"timers: {speaker.keepalive} and {speaker.hold} s; hold is at least 3 s, and not below keepalive"
        )


def _neighbor(neighbor: Neighbor) -> None:
    if bool(neighbor.interface) == bool(neighbor.address):
        raise _invalid("neighbors: one is named by either an interface or an address")
    if neighbor.address:
        address = _address(neighbor.address)
        _canonical(neighbor.address, str(address))
        if address.is_link_local:
            raise _invalid(f"neighbor {neighbor.address}: a link-local address needs its interface instead")
    elif not _INTERFACE.fullmatch(neighbor.interface):
        raise _invalid(f"neighbor {neighbor.interface!r}: no interface has such a name")
    if neighbor.asn is not None:
        _asn(neighbor.asn)


def _asn(number: int) -> None:
    if not 1 <= number <= _MOST_ASN:
        raise _invalid(f"asn {number}: not from 1 to {_MOST_ASN}")


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address(text)
    except ValueError as error:
        raise _invalid(f"{text!r} is not an address") from error


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise _invalid(f"{text!r} is not a prefix: {error}") from error


def _canonical(given: str, canonical: str) -> None:
    if given != canonical:
        raise _invalid(f"{given}: its canonical form is {canonical}")


def _invalid(what: str) -> errors.Rejected:
    return errors.Rejected(Cause.INVALID, f"configure BGP: {what}")
