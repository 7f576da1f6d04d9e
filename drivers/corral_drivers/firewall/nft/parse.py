"""What libnftables shows of our tables in JSON (libnftables-json(5)), as elements, and as a sum of all rules. Pure."""

from __future__ import annotations

import hashlib
import ipaddress
import json
from collections.abc import Iterator
from typing import Any

from corral_drivers.firewall import sets
from corral_drivers.firewall.model import Element

Json = Any

_CHANGING = ("handle", "elem")


def elements(listing: Json) -> Iterator[Element]:
    """Every element of a set or map of ours; sets that somebody else put into our table have none."""
    for item in listing["nftables"]:
        shown = item.get("set") or item.get("map")
        kind = sets.BY_NAME.get(shown["name"]) if shown else None
        if kind is not None and shown["family"] == kind.family:
            yield from (_element(kind, one) for one in shown.get("elem", ()))


def fingerprint(listing: Json) -> str:
    """A sum of chains, rules and declarations: the same until somebody changes one of them."""
    bare = []
    for item in listing["nftables"]:
        for what, shown in item.items():
            if what != "metainfo":
                bare.append({what: {name: _ordered(part) for name, part in shown.items() if name not in _CHANGING}})
    return hashlib.sha256(json.dumps(bare, sort_keys=True).encode()).hexdigest()[:32]


def _ordered(part: Json) -> Json:
    """The kernel shows the members of a rule's own set in any order."""
    if isinstance(part, dict):
        return {
            name: sorted(map(_ordered, one), key=json.dumps)
            if name == "set" and isinstance(one, list)
            else _ordered(one)
            for name, one in part.items()
        }
    return [_ordered(one) for one in part] if isinstance(part, list) else part


def _element(kind: sets.Kind, shown: Json) -> Element:
    data = ""
    if kind.data:
        shown, value = shown
        data = _value(kind.data, value)
    comment = ""
    if isinstance(shown, dict) and "elem" in shown:
        comment = shown["elem"].get("comment", "")
        shown = shown["elem"]["val"]
    key = shown["concat"] if isinstance(shown, dict) and "concat" in shown else [shown]
    return Element(
        kind.name, tuple(_value(type_, one) for type_, one in zip(kind.key, key, strict=True)), data, comment
    )


def _value(type_: str, shown: Json) -> str:
    if isinstance(shown, dict) and "prefix" in shown:
        return f"{shown['prefix']['addr']}/{shown['prefix']['len']}"
    if isinstance(shown, dict):
        first, last = shown["range"]
        return f"{first}-{last}"
    if type_ == "integer":
        number = int(shown, 0) if isinstance(shown, str) else int(shown)
        return str(ipaddress.IPv6Address(number))
    return str(shown)
