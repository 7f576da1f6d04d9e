"""Which tracked connections may not go on, by what a host is asked for. Pure.

The rules let established connections through without another look: whoever takes something away asks here which ones
must end. It goes by the networks and groups themselves, not by the sets made of them.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from corral_drivers.firewall import elements, policies
from corral_drivers.firewall.model import Flow, Group, Rule, Shared, Tap


@dataclass(slots=True)
class Court:
    """Judges the flows of these taps."""

    shared: Shared
    taps: tuple[Tap, ...]
    _by_address: Mapping[str, Tap] = field(init=False)
    _groups: Mapping[str, Group] = field(init=False)
    _reachable: dict[str, frozenset[str]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._by_address = {address: tap for tap in self.taps for address in tap.addresses}
        self._groups = {group.name: group for group in self.shared.groups}

    @property
    def addresses(self) -> frozenset[str]:
        """The addresses of which flows are to be judged; others' are none of its business."""
        return frozenset(self._by_address)

    def ends(self, flow: Flow) -> bool:
        """Whether this flow may not go on."""
        sender, receiver = self._by_address.get(flow.source), self._by_address.get(flow.replies_from)
        if sender and not (self._may_send(sender, flow) and _is_seen_from(sender, flow)):
            return True
        return receiver is not None and not self._may_receive(receiver, flow)

    def _may_send(self, tap: Tap, flow: Flow) -> bool:
        if not self._is_near(tap, flow.replies_from):
            return False
        if not tap.groups or policies.lets_all_out(tap.groups, self._groups):
            return True
        rules = (rule for group in self._of(tap) for rule in group.egress or ())
        return self._lets(rules, flow.replies_from, flow)

    def _may_receive(self, tap: Tap, flow: Flow) -> bool:
        if not self._is_near(tap, flow.source):
            return False
        rules = (rule for group in self._of(tap) for rule in group.ingress)
        return not tap.groups or self._lets(rules, flow.source, flow)

    def _of(self, tap: Tap) -> list[Group]:
        return [self._groups[name] for name in tap.groups if name in self._groups]

    def _is_near(self, tap: Tap, remote: str) -> bool:
        """Whether the remote is outside the cloud, or someone whom the tap's network talks with."""
        if not tap.network or not any(_is_in(remote, prefix) for prefix in self.shared.prefixes):
            return True
        if tap.network not in self._reachable:
            self._reachable[tap.network] = elements.reachable(self.shared, tap.network)
        return remote in self._reachable[tap.network]

    def _lets(self, rules: Iterable[Rule], remote: str, flow: Flow) -> bool:
        return any(
            self._is_meant(rule, remote) and policies.box(rule).holds(flow.protocol, *_words(flow)) for rule in rules
        )

    def _is_meant(self, rule: Rule, remote: str) -> bool:
        if rule.group:
            group = self._groups.get(rule.group)
            return group is not None and remote in group.members
        return not rule.remote or _is_in(remote, rule.remote)


def _words(flow: Flow) -> tuple[int, int]:
    """The first two 16-bit words of the header; the checksum that is ICMP's second is in every range."""
    if flow.protocol in policies.ICMP:
        return (flow.dport << 8) | flow.sport, 0
    return flow.sport, flow.dport


def _is_seen_from(sender: Tap, flow: Flow) -> bool:
    """Whether NAT, if any is done, is as it is asked for."""
    return flow.replies_to == flow.source or flow.replies_to in sender.nat


def _is_in(address: str, prefix: str) -> bool:
    parsed, network = ipaddress.ip_address(address), ipaddress.ip_network(prefix)
    return parsed.version == network.version and parsed in network
