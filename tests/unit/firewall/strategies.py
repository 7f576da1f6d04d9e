"""Hosts of few names and addresses, so that everything meets everything."""

from __future__ import annotations

from hypothesis import strategies as st

from corral_drivers.firewall.model import Floating, Group, Network, Rule, Service, Shared, Tap

ADDRESSES = ("10.77.0.1", "10.77.0.2", "10.78.0.1", "192.0.2.1", "fd77::1", "fd77::2", "fd78::1")
PREFIXES = (
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.77.0.0/16",
    "10.77.0.2/32",
    "192.0.2.0/24",
    "::/0",
    "fd77::/64",
    "fd77::2/128",
)
NAMES = ("a", "b", "c")

addresses = st.sampled_from(ADDRESSES)
some_addresses = st.lists(addresses, unique=True, max_size=4).map(tuple)
some_names = st.lists(st.sampled_from(NAMES), unique=True, max_size=2).map(tuple)
some_prefixes = st.lists(st.sampled_from(PREFIXES), unique=True, max_size=3).map(tuple)

ports = st.tuples(st.integers(0, 6), st.integers(0, 6)).map(lambda pair: (min(pair), max(pair)))
meant = st.one_of(
    st.just({}),
    st.builds(lambda prefix: {"remote": prefix}, st.sampled_from(PREFIXES)),
    st.builds(lambda name: {"group": name}, st.sampled_from(NAMES)),
)
let_through = st.one_of(
    st.just({}),
    st.builds(lambda number: {"protocol": number}, st.sampled_from([1, 6, 17, 47])),
    st.builds(lambda number, span: {"protocol": number, "ports": span}, st.sampled_from([6, 17]), ports),
    st.builds(lambda number, kind: {"protocol": number, "kind": kind}, st.sampled_from([1, 58]), st.integers(0, 3)),
)
rules = st.builds(lambda who, what: Rule(**who, **what), meant, let_through)
some_rules = st.lists(rules, max_size=4).map(tuple)

shared = st.builds(
    Shared,
    networks=st.lists(
        st.builds(Network, st.sampled_from(NAMES), some_addresses, some_names), unique_by=lambda one: one.name
    ).map(tuple),
    groups=st.lists(
        st.builds(Group, st.sampled_from(NAMES), some_addresses, some_rules, st.none() | some_rules),
        unique_by=lambda one: one.name,
    ).map(tuple),
    prefixes=some_prefixes,
    direct=some_prefixes,
    off_limits=some_prefixes,
    floating=st.lists(
        st.sampled_from([Floating("203.0.113.1", "10.77.0.1"), Floating("fd93::1", "fd77::1")]), unique=True
    ).map(tuple),
    services=st.lists(st.builds(Service, st.sampled_from([6, 17]), st.integers(1, 3)), unique=True).map(tuple),
)


@st.composite
def some_taps(draw: st.DrawFn) -> tuple[Tap, ...]:
    """Taps of which no two have the same address."""
    free = list(draw(st.permutations(ADDRESSES)))
    found = []
    for number in range(draw(st.integers(0, 3))):
        own = tuple(free.pop() for _ in range(draw(st.integers(0, 2))))
        found.append(
            Tap(
                interface=f"ct{number}",
                owner=f"owner-{draw(st.integers(1, 2))}",
                mac=f"02:00:00:00:00:0{draw(st.integers(1, 3))}",
                addresses=own,
                network=draw(st.sampled_from(("", *NAMES))),
                groups=draw(some_names),
                nat=draw(st.sampled_from([(), ("100.87.0.1",), ("100.87.0.1", "fd87::1")])),
            )
        )
    return tuple(found)
