"""Speakers for the tests of this room: named ones for golden files, and any for laws."""

from __future__ import annotations

from hypothesis import strategies as st

from corral_drivers.bgp.model import Neighbor, Speaker

MARK = "corral:c10d:4057"

SPEAKERS = {
    "unnumbered": Speaker(
        asn=4200000011,
        addresses=("100.87.0.11", "fd87::11"),
        neighbors=(Neighbor("up1"), Neighbor("up2")),
        blocks=("10.77.0.0/26", "fd77::/112"),
        pools=("10.77.0.0/24", "fd77::/64"),
    ),
    "by-address": Speaker(
        asn=64513,
        addresses=("fd87::12", "100.87.0.12"),
        neighbors=(Neighbor(address="192.0.2.1", asn=64512), Neighbor(address="2001:db8::1")),
        keepalive=60,
        hold=180,
        bfd=True,
    ),
    "single-addresses": Speaker(
        asn=64514,
        addresses=("100.87.0.13",),
        neighbors=(Neighbor("eno1.100", asn=64512),),
        blocks=("10.77.0.7/32", "100.87.0.13/32"),
        pools=("10.77.0.7/32", "10.77.0.9/32", "fd77::1/128"),
    ),
}

_ADDRESSES = ("100.87.0.11", "100.87.0.12", "fd87::11", "10.77.0.9")
_PREFIXES = (
    *("10.77.0.0/24", "10.77.0.0/26", "10.77.0.64/26", "10.77.0.0/30", "10.77.0.9/32", "10.0.0.0/8"),
    *("fd77::/64", "fd77::/112", "fd77::1:0/112", "fd77::5/128"),
)
_NEIGHBORS = (
    *(Neighbor("up1"), Neighbor("up2"), Neighbor("up2", asn=64512), Neighbor("up22")),
    *(Neighbor(address="192.0.2.1"), Neighbor(address="192.0.2.11"), Neighbor(address="2001:db8::1", asn=64512)),
)

speakers = st.builds(
    Speaker,
    asn=st.sampled_from([64513, 4200000011]),
    addresses=st.lists(st.sampled_from(_ADDRESSES), unique=True).map(lambda some: ("100.87.0.1", *some)),
    neighbors=st.lists(st.sampled_from(_NEIGHBORS), unique_by=lambda one: one.name, min_size=1, max_size=4).map(tuple),
    keepalive=st.sampled_from([1, 3, 60]),
    hold=st.sampled_from([180, 200]),
    bfd=st.booleans(),
    blocks=st.lists(st.sampled_from(_PREFIXES), unique=True, max_size=3).map(tuple),
    pools=st.lists(st.sampled_from(_PREFIXES), unique=True, max_size=3).map(tuple),
)

prefixes = st.one_of(
    st.sampled_from(_PREFIXES),
    st.sampled_from(_ADDRESSES).map(lambda one: f"{one}/{128 if ':' in one else 32}"),
    st.sampled_from(["10.77.0.5/32", "10.77.0.70/32", "10.77.9.9/32", "192.0.2.1/32", "fd77::6/128", "fd77::1:6/128"]),
    st.sampled_from(["0.0.0.0/0", "::/0", "10.77.0.0/27", "10.77.0.0/25", "fd77::/120"]),
)
