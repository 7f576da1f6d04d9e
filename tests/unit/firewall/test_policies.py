"""What groups let through is the same by the rules themselves and by the sets that are made of them."""

from __future__ import annotations

import ipaddress
import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from corral_drivers.firewall import flows, plan, policies
from corral_drivers.firewall.model import Element, Flow, Observed, Shared, Tap

from . import strategies

OWN = "10.77.0.99"


class Kernel:
    """How the rules of `nft/base.nft.j2` look elements up, for one guest on `ct0`."""

    def __init__(self, elements: tuple[Element, ...]) -> None:
        self._elements = elements

    def lets_in(self, remote: str, protocol: int, first: int, second: int) -> bool:
        return self._has("open_in", "ct0") or self._granted("policies_in", remote, protocol, first, second)

    def lets_out(self, remote: str, protocol: int, first: int, second: int) -> bool:
        return self._has("open_out", "ct0") or self._granted("policies_out", remote, protocol, first, second)

    def reaches(self, remote: str) -> bool:
        version = ipaddress.ip_address(remote).version
        if not self._find(f"cloud{version}", remote):
            return True
        networks = self._find("networks", "ct0")
        return not networks or bool(self._find(f"reach{version}", networks[0].data, remote))

    def _granted(self, policy: str, remote: str, protocol: int, first: int, second: int) -> bool:
        version = ipaddress.ip_address(remote).version
        for number in self._find(policy, "ct0"):
            for name in ("remotes", "members"):
                found = self._find(f"{name}{version}", number.data, remote)
                assert len(found) <= 1, "the kernel would have refused an overlap"
                for grant in found:
                    if self._find("grants", grant.data, str(protocol), str(first), str(second)):
                        return True
        return False

    def _has(self, of: str, *key: str) -> bool:
        return bool(self._find(of, *key))

    def _find(self, of: str, *key: str) -> list[Element]:
        return [one for one in self._elements if one.of == of and all(map(_holds, one.key, key))]


def _holds(field: str, value: str) -> bool:
    if field == value:
        return True
    if "/" in field:
        return ipaddress.ip_address(value) in ipaddress.ip_network(field)
    first, dash, last = field.partition("-")
    return bool(dash) and value.isdecimal() and int(first) <= int(value) <= int(last)


@settings(deadline=None, max_examples=30)
@given(strategies.shared, strategies.some_names, st.sampled_from(("", *strategies.NAMES)))
def test_the_sets_let_through_what_the_rules_let_through(shared: Shared, groups: tuple[str, ...], network: str) -> None:
    tap = Tap("ct0", "owner-1", "02:00:00:00:00:01", (OWN,), network, groups)
    (laid, *_) = plan.plan(shared, [tap], Observed()).steps
    assert isinstance(laid, plan.Lay)
    kernel, court = Kernel(laid.elements), flows.Court(shared, (tap,))
    for remote, protocol in itertools.product(strategies.ADDRESSES, (1, 6, 17, 47, 58)):
        near = kernel.reaches(remote)
        for word in range(5):
            is_icmp = protocol in policies.ICMP
            first, second = (word << 8, 0) if is_icmp else (999, word)
            ports = (0, word) if is_icmp else (999, word)
            coming = Flow(protocol, remote, OWN, *ports, OWN, remote)
            going = Flow(protocol, OWN, remote, *ports, remote, OWN)
            assert court.ends(coming) != (near and kernel.lets_in(remote, protocol, first, second))
            assert court.ends(going) != (near and kernel.lets_out(remote, protocol, first, second))


boxes = st.builds(policies.box, strategies.rules)


@given(st.lists(boxes, max_size=6), st.sampled_from([1, 6, 17, 47, 58]), st.integers(0, 0x3FF), st.integers(0, 8))
def test_boxes_are_united_without_overlap(some: list[policies.Box], protocol: int, first: int, second: int) -> None:
    united = policies.united(some)
    holding = [box for box in united if box.holds(protocol, first, second)]
    assert len(holding) == any(box.holds(protocol, first, second) for box in some)


prefixes = st.sampled_from(strategies.PREFIXES).map(ipaddress.ip_network)


@given(st.dictionaries(prefixes, st.lists(boxes, max_size=2), max_size=5), st.sampled_from(strategies.ADDRESSES))
def test_prefixes_are_taken_apart_without_overlap(
    asked: dict[policies.Prefix, list[policies.Box]], address: str
) -> None:
    parsed = ipaddress.ip_address(address)
    holding = [granted for prefix, granted in policies.pieces(asked).items() if parsed in prefix]
    around = [granted for prefix, granted in asked.items() if parsed in prefix]
    assert len(holding) == bool(around)
    if around:
        assert holding[0] == policies.united(itertools.chain.from_iterable(around))
