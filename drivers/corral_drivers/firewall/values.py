"""What a firewall may be asked for: only the form in which the kernel will show it, or a plan never ends.

Every implementation checks each element before it touches anything, so that nothing that is written into a rule set's
text can be more than it seems.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping

from corral_drivers import errors
from corral_drivers.firewall import sets
from corral_drivers.firewall.model import Cause, Element

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_INTERFACE = re.compile(r"[0-9A-Za-z_.-]{1,15}")
_COMMENT = re.compile(r"[0-9A-Za-z_.:-]{0,127}")
"""128 octets with their end (`NFTNL_UDATA_COMMENT_MAXLEN`)."""


def check(elements: Iterable[Element]) -> None:
    """Raise Rejected for the first that no kernel would show as it stands."""
    for element in elements:
        kind = sets.BY_NAME.get(element.of)
        if kind is None or len(kind.key) != len(element.key):
            raise _wrong(element, "there is no such set")
        for value, type_ in zip(element.key, kind.key, strict=True):
            _check(element, value, type_, is_interval=kind.is_interval)
        if bool(kind.data) != bool(element.data):
            raise _wrong(element, "a map's element has data, a set's has none")
        if kind.data:
            _check(element, element.data, kind.data, is_interval=False)
        if not _COMMENT.fullmatch(element.comment):
            raise _wrong(element, "its comment has other characters than letters, digits and _ . : -, or over 127")


def _check(element: Element, value: str, type_: str, *, is_interval: bool) -> None:
    try:
        if not _HOLDS[type_](value, is_interval):
            raise _wrong(element, f"{value} is not the canonical form of its {type_}")
    except ValueError as error:
        raise _wrong(element, str(error)) from error


def _address(version: int) -> Callable[[str, bool], bool]:
    def holds(value: str, is_interval: bool) -> bool:
        parsed = ipaddress.ip_network(value) if is_interval else ipaddress.ip_address(value)
        shown = str(parsed).removesuffix(f"/{parsed.max_prefixlen}")
        return parsed.version == version and shown == value

    return holds


def _number(largest: int) -> Callable[[str, bool], bool]:
    def holds(value: str, is_interval: bool) -> bool:
        ends = value.split("-") if is_interval else [value]
        if not 1 <= len(ends) <= 2 or not all(end.isdecimal() and str(int(end)) == end for end in ends):
            return False
        return int(ends[0]) <= int(ends[-1]) <= largest and (len(ends) == 1 or ends[0] != ends[1])

    return holds


_HOLDS: Mapping[str, Callable[[str, bool], bool]] = {
    "ifname": lambda value, _: bool(_INTERFACE.fullmatch(value)),
    "ether_addr": lambda value, _: bool(_MAC.fullmatch(value)),
    "ipv4_addr": _address(4),
    "ipv6_addr": _address(6),
    # Only of addresses: nftables 1.0.6 knows the target of neighbour discovery as a number.
    "integer": _address(6),
    "mark": _number(2**32 - 1),
    "inet_proto": _number(255),
    "inet_service": _number(65535),
}


def _wrong(element: Element, why: str) -> errors.Rejected:
    shown = " . ".join(element.key)
    return errors.Rejected(Cause.FAILED, f"{element.of} of {shown}: {why}")
