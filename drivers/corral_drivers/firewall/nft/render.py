"""Rules and elements as nftables' own text (nft(8)). Pure: the same text for the same values."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from itertools import groupby

import jinja2

from corral_drivers.firewall import sets
from corral_drivers.firewall.model import Element
from corral_drivers.firewall.port import Settings

_SOLICITS = "limit rate over 2/second burst 20 packets"
"""How often a guest may ask from link-local addresses of its own choice: each makes an entry in the neighbour table."""

_AT_ONCE = 500
"""Elements in one statement."""

_TEMPLATES = jinja2.Environment(  # noqa: S701 - nftables' text, of values that are checked by `values`; nothing is HTML
    loader=jinja2.PackageLoader("corral_drivers.firewall.nft", "."),
    undefined=jinja2.StrictUndefined,
    keep_trailing_newline=True,
)


def base(settings: Settings) -> str:
    """Both tables with their sets, empty, and all their rules."""
    return _TEMPLATES.get_template("base.nft.j2").render(
        table=settings.table,
        prefix=settings.prefix,
        gateway=ipaddress.IPv4Address(settings.gateway),
        gateway6=ipaddress.IPv6Address(settings.gateway6),
        gateway6_number=_number(settings.gateway6),
        kinds=sets.KINDS,
        key_type=_key_type,
        limits=_limits(settings),
    )


def laid(settings: Settings, elements: Iterable[Element]) -> str:
    """What makes both tables anew, whatever of them is there."""
    gone = "".join(f"table {family} {settings.table}\ndelete table {family} {settings.table}\n" for family in _FAMILIES)
    return gone + base(settings) + changed(settings, (), elements)


def changed(settings: Settings, remove: Iterable[Element], add: Iterable[Element]) -> str:
    """What removes and adds elements; a key that is in both gets its new data."""
    lines = [*_statements("delete", settings, remove), *_statements("add", settings, add)]
    return "".join(f"{line}\n" for line in lines)


_FAMILIES = ("inet", "arp")


def _statements(verb: str, settings: Settings, elements: Iterable[Element]) -> Iterable[str]:
    limits = _limits(settings)
    for name, some in groupby(sorted(elements), key=lambda element: element.of):
        kind, every = sets.BY_NAME[name], list(some)
        for start in range(0, len(every), _AT_ONCE):
            shown = ", ".join(_element(kind, one, verb, limits) for one in every[start : start + _AT_ONCE])
            yield f"{verb} element {kind.family} {settings.table} {name} {{ {shown} }}"


def _element(kind: sets.Kind, element: Element, verb: str, limits: dict[str, str]) -> str:
    key = " . ".join(_value(value, type_) for value, type_ in zip(element.key, kind.key, strict=True))
    if verb == "delete":
        return key
    if kind.limit:
        key += f" {limits[kind.limit]}"
    if element.comment:
        key += f' comment "{element.comment}"'
    return f"{key} : {_value(element.data, kind.data)}" if kind.data else key


def _value(value: str, type_: str) -> str:
    if type_ == "ifname":
        return f'"{value}"'
    return _number(value) if type_ == "integer" else value


def _number(address: str) -> str:
    return f"0x{int(ipaddress.IPv6Address(address)):032x}"


def _key_type(kind: sets.Kind) -> str:
    # A type of this length has no name: it is said by what is looked up.
    if "integer" in kind.key:
        return "typeof iifname . @th,64,128"
    key = f"type {' . '.join(kind.key)}"
    return f"{key} : {kind.data}" if kind.data else key


def _limits(settings: Settings) -> dict[str, str]:
    return {"connections": f"ct count over {settings.connections}", "solicits": _SOLICITS}
