"""The desired state of a host as elements of the sets. Pure; `plan` compares them with what is there."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping

from corral_drivers.firewall import policies
from corral_drivers.firewall.model import Element, Group, Shared, Tap

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Ids = Mapping[str, int]


def link_local(mac: str) -> str:
    """The link-local address that a guest makes of its MAC (RFC 4291, appendix A)."""
    octets = bytes.fromhex(mac.replace(":", ""))
    tail = bytes([octets[0] ^ 2]) + octets[1:3] + b"\xff\xfe" + octets[3:]
    return str(ipaddress.IPv6Address(b"\xfe\x80" + bytes(6) + tail))


def network_name(network: str) -> str:
    """Under which a network has its number."""
    return f"net:{network}"


def names_of_taps(shared: Shared, taps: Iterable[Tap]) -> frozenset[str]:
    """What these taps need numbers for."""
    known = {group.name: group for group in shared.groups}
    found: set[str] = set()
    for tap in taps:
        if tap.network:
            found.add(network_name(tap.network))
        if tap.groups:
            found.add(policies.ingress_name(tap.groups))
            if not policies.lets_all_out(tap.groups, known):
                found.add(policies.egress_name(tap.groups))
    return frozenset(found)


def names(shared: Shared, taps: Iterable[Tap]) -> frozenset[str]:
    """What the whole host needs numbers for."""
    taps = tuple(taps)
    grants = {
        policies.grant_name(boxes)
        for policy in _policies(shared, taps)
        for granted in (policy.prefixes.values(), policy.members.values())
        for boxes in granted
    }
    return names_of_taps(shared, taps) | grants


def numbered(needed: Iterable[str], known: Ids) -> dict[str, int]:
    """A number for each name: the one that it has, or the lowest that no name has."""
    taken, ids = set(known.values()), {}
    free = 1
    for name in sorted(needed):
        if name in known:
            ids[name] = known[name]
            continue
        while free in taken:
            free += 1
        taken.add(free)
        ids[name] = free
    return ids


def of_names(ids: Ids) -> frozenset[Element]:
    """The directory of numbers, for whoever comes after us."""
    return frozenset(Element("names", (str(number),), comment=name) for name, number in ids.items())


def of_taps(shared: Shared, taps: Iterable[Tap], ids: Ids) -> frozenset[Element]:
    """All elements that are these taps' own."""
    known = {group.name: group for group in shared.groups}
    return frozenset(element for tap in taps for part in _PARTS for element in part(tap, ids, known))


def of_shared(shared: Shared, taps: Iterable[Tap], ids: Ids) -> frozenset[Element]:
    """All elements that no single tap owns; of networks and groups, what these taps are in."""
    taps = tuple(taps)
    found = {
        *_prefixes("cloud", shared.prefixes),
        *_prefixes("off_limits", shared.off_limits),
        *_prefixes("direct", shared.direct),
        *(Element("services", (str(one.protocol), str(one.port))) for one in shared.services),
        *_reach(shared, taps, ids),
    }
    for policy in _policies(shared, taps):
        found |= set(_granted(policy, ids))
    for one in shared.floating:
        version = ipaddress.ip_address(one.private).version
        found.add(Element(f"public_in{version}", (one.public,), one.private))
        found.add(Element(f"public_out{version}", (one.private,), one.public))
        found.add(Element(f"published{version}", (one.private,)))
    return frozenset(found)


def reachable(shared: Shared, network: str) -> frozenset[str]:
    """The addresses in the cloud's prefixes that who is in this network talks with."""
    every = {one.name: one for one in shared.networks}
    own = every.get(network)
    if own is None:
        return frozenset()
    some = (own, *(every[peer] for peer in own.peers if peer in every))
    return frozenset(address for one in some for address in one.members)


def _identity(tap: Tap, _ids: Ids, _known: Mapping[str, Group]) -> Iterator[Element]:
    """What the guest may send from."""
    yield Element("guests", (tap.interface,), comment=tap.owner)
    yield Element("solicits", (tap.interface,))
    yield Element("macs", (tap.interface, tap.mac))
    yield Element("arp_macs", (tap.interface, tap.mac))
    for address in (*tap.addresses, link_local(tap.mac)):
        if ipaddress.ip_address(address).version == 4:
            yield Element("sources4", (tap.interface, tap.mac, address))
            yield Element("arp_sources", (tap.interface, tap.mac, address))
        else:
            yield Element("sources6", (tap.interface, tap.mac, address))
            yield Element("targets", (tap.interface, address))


def _belonging(tap: Tap, ids: Ids, known: Mapping[str, Group]) -> Iterator[Element]:
    """Its network, and what its groups let through."""
    if tap.network:
        network = str(ids[network_name(tap.network)])
        yield Element("networks", (tap.interface,), network)
        for address in tap.addresses:
            version = ipaddress.ip_address(address).version
            yield Element(f"homes{version}", (address,), network, comment=tap.interface)
    if not tap.groups:
        yield Element("open_in", (tap.interface,))
    else:
        yield Element("policies_in", (tap.interface,), str(ids[policies.ingress_name(tap.groups)]))
    if not tap.groups or policies.lets_all_out(tap.groups, known):
        yield Element("open_out", (tap.interface,))
    else:
        yield Element("policies_out", (tap.interface,), str(ids[policies.egress_name(tap.groups)]))


def _outside(tap: Tap, _ids: Ids, _known: Mapping[str, Group]) -> Iterator[Element]:
    """From where it is seen outside."""
    for address in tap.nat:
        yield Element(f"nat{ipaddress.ip_address(address).version}", (tap.interface,), address)


_PARTS = (_identity, _belonging, _outside)


def _prefixes(of: str, asked: Iterable[str]) -> Iterator[Element]:
    """Merged, because the kernel refuses intervals that overlap."""
    parsed = [ipaddress.ip_network(prefix) for prefix in asked]
    four = ipaddress.collapse_addresses(one for one in parsed if isinstance(one, ipaddress.IPv4Network))
    six = ipaddress.collapse_addresses(one for one in parsed if isinstance(one, ipaddress.IPv6Network))
    merged: list[policies.Prefix] = [*four, *six]
    for prefix in merged:
        yield Element(f"{of}{prefix.version}", (shown(prefix),))


def shown(prefix: policies.Prefix) -> str:
    """A prefix as nftables shows it: a single address without its length."""
    return str(prefix.network_address) if prefix.prefixlen == prefix.max_prefixlen else str(prefix)


def _reach(shared: Shared, taps: Iterable[Tap], ids: Ids) -> Iterator[Element]:
    for network in {tap.network for tap in taps if tap.network}:
        number = str(ids[network_name(network)])
        for address in reachable(shared, network):
            yield Element(f"reach{ipaddress.ip_address(address).version}", (number, address))


def _policies(shared: Shared, taps: Iterable[Tap]) -> Iterator[policies.Policy]:
    known = {group.name: group for group in shared.groups}
    for groups in {tuple(sorted(set(tap.groups))) for tap in taps if tap.groups}:
        yield policies.ingress(groups, known)
        if not policies.lets_all_out(groups, known):
            yield policies.egress(groups, known)


def _granted(policy: policies.Policy, ids: Ids) -> Iterator[Element]:
    number = str(ids[policy.name])
    for prefix, boxes in policy.prefixes.items():
        grant = str(ids[policies.grant_name(boxes)])
        yield Element(f"remotes{prefix.version}", (number, shown(prefix)), grant)
        yield from (Element("grants", (grant, *box.key())) for box in boxes)
    for address, boxes in policy.members.items():
        grant = str(ids[policies.grant_name(boxes)])
        yield Element(f"members{ipaddress.ip_address(address).version}", (number, address), grant)
        yield from (Element("grants", (grant, *box.key())) for box in boxes)
