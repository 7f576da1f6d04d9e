"""Security groups as the sets need them: which remote gets which grant. Pure.

A guest in several groups is let have what any of them lets: such a combination is one *policy*, whatever guests have
it. Within a policy each remote address has one *grant*: all that is let through for it. So a packet costs two looks, of
(policy, address) → grant and of (grant, protocol, ports), however many rules there are.

The kernel refuses ranges that overlap within a set; here they are taken apart.
"""

from __future__ import annotations

import hashlib
import ipaddress
import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from corral_drivers.firewall import sets
from corral_drivers.firewall.model import Group, Rule

ICMP = frozenset({1, 58})

Prefix = ipaddress.IPv4Network | ipaddress.IPv6Network
Range = tuple[int, int]
_ALL: Range = (0, 65535)


@dataclass(frozen=True, slots=True, order=True)
class Box:
    """What is let through: a protocol (None: all), and a range of each of the first two 16-bit words of its header.

    Those are source and destination port of TCP, UDP, SCTP, DCCP, UDP-Lite; of ICMP the first has type and code.
    """

    protocol: int | None
    first: Range = _ALL
    second: Range = _ALL

    def key(self) -> tuple[str, str, str]:
        """As fields of an element of `grants`."""
        protocol = sets.FULL_PROTOCOL if self.protocol is None else str(self.protocol)
        return protocol, ranged(self.first), ranged(self.second)

    def holds(self, protocol: int, first: int, second: int) -> bool:
        """Whether a packet with these is let through."""
        return self.protocol in (None, protocol) and _within(first, self.first) and _within(second, self.second)


Boxes = frozenset[Box]


@dataclass(frozen=True, slots=True)
class Policy:
    """What one combination of groups lets through, one way: by prefix, no two of which overlap, and by address."""

    name: str
    prefixes: Mapping[Prefix, Boxes] = field(default_factory=dict)
    members: Mapping[str, Boxes] = field(default_factory=dict)


def ingress_name(groups: Iterable[str]) -> str:
    """The name of a combination's policy of what comes in."""
    return f"in:{_digest(*sorted(set(groups)))}"


def egress_name(groups: Iterable[str]) -> str:
    """The name of a combination's policy of what goes out."""
    return f"out:{_digest(*sorted(set(groups)))}"


def grant_name(boxes: Boxes) -> str:
    """The name of what is let through, the same for the same."""
    return f"grant:{_digest(*(' '.join(box.key()) for box in sorted(boxes, key=Box.key)))}"


def lets_all_out(groups: Iterable[str], known: Mapping[str, Group]) -> bool:
    """Whether one of the combination lets everything out; a group that is not known lets nothing."""
    return any(group.egress is None for name in groups if (group := known.get(name)))


def ingress(groups: Iterable[str], known: Mapping[str, Group]) -> Policy:
    """What the combination lets in."""
    return _policy(ingress_name(groups), _rules(groups, known, lambda group: group.ingress), known)


def egress(groups: Iterable[str], known: Mapping[str, Group]) -> Policy:
    """What the combination lets out, where it does not let out everything."""
    return _policy(egress_name(groups), _rules(groups, known, lambda group: group.egress or ()), known)


def box(rule: Rule) -> Box:
    """What one rule lets through."""
    if rule.kind is not None:
        return Box(rule.protocol, first=(rule.kind << 8, (rule.kind << 8) | 0xFF))
    return Box(rule.protocol, second=rule.ports or _ALL)


def united(boxes: Iterable[Box]) -> Boxes:
    """The same packets, by boxes of which no two overlap or touch."""
    every = frozenset(boxes)
    if Box(None) in every:
        return frozenset({Box(None)})
    by_protocol: dict[int | None, list[Box]] = {}
    for one in every:
        by_protocol.setdefault(one.protocol, []).append(one)
    found: set[Box] = set()
    for protocol, some in by_protocol.items():
        if Box(protocol) in some:
            found.add(Box(protocol))
        else:
            # A rule has a range in one of the two only: ICMP's in the first, all others' in the second.
            found |= {Box(protocol, first=span) for span in _merged(one.first for one in some if one.first != _ALL)}
            found |= {Box(protocol, second=span) for span in _merged(one.second for one in some if one.second != _ALL)}
    return frozenset(found)


def pieces(asked: Mapping[Prefix, Iterable[Box]]) -> dict[Prefix, Boxes]:
    """The same by prefixes of which no two overlap: what is in several gets what all of them let through."""
    found: dict[Prefix, Boxes] = {}
    for prefix in asked:
        around = (boxes for other, boxes in asked.items() if _contains(other, prefix))
        boxes = united(itertools.chain.from_iterable(around))
        inside = [other for other in asked if other != prefix and _contains(prefix, other)]
        found |= dict.fromkeys(_without(prefix, inside), boxes)
    return found


def ranged(span: Range) -> str:
    """A range as nftables shows it."""
    return str(span[0]) if span[0] == span[1] else f"{span[0]}-{span[1]}"


def _rules(
    groups: Iterable[str], known: Mapping[str, Group], of: Callable[[Group], tuple[Rule, ...]]
) -> frozenset[Rule]:
    return frozenset(rule for name in groups if (group := known.get(name)) for rule in of(group))


def _policy(name: str, rules: frozenset[Rule], known: Mapping[str, Group]) -> Policy:
    prefixes: dict[Prefix, set[Box]] = {}
    members: dict[str, set[Box]] = {}
    for rule in rules:
        if rule.group:
            group = known.get(rule.group)
            for address in () if group is None else group.members:
                members.setdefault(address, set()).add(box(rule))
        else:
            for prefix in (rule.remote,) if rule.remote else ("0.0.0.0/0", "::/0"):
                prefixes.setdefault(ipaddress.ip_network(prefix), set()).add(box(rule))
    return Policy(name, pieces(prefixes), {address: united(boxes) for address, boxes in members.items()})


def _digest(*words: str) -> str:
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:32]


def _within(value: int, span: Range) -> bool:
    return span[0] <= value <= span[1]


def _merged(spans: Iterable[Range]) -> list[Range]:
    merged: list[Range] = []
    for first, last in sorted(spans):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged


def _contains(one: Prefix, other: Prefix) -> bool:
    if isinstance(one, ipaddress.IPv4Network):
        return isinstance(other, ipaddress.IPv4Network) and other.subnet_of(one)
    return isinstance(other, ipaddress.IPv6Network) and other.subnet_of(one)


def _without(prefix: Prefix, inside: Iterable[Prefix]) -> list[Prefix]:
    """What is left of a prefix, as prefixes."""
    left = [prefix]
    for hole in inside:
        kept: list[Prefix] = []
        for one in left:
            if _contains(hole, one):
                continue
            kept += _excluded(one, hole) if _contains(one, hole) else [one]
        left = kept
    return left


def _excluded(one: Prefix, hole: Prefix) -> list[Prefix]:
    if isinstance(one, ipaddress.IPv4Network) and isinstance(hole, ipaddress.IPv4Network):
        return list(one.address_exclude(hole))
    if isinstance(one, ipaddress.IPv6Network) and isinstance(hole, ipaddress.IPv6Network):
        return list(one.address_exclude(hole))
    return [one]
