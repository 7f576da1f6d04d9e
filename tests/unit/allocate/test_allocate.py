from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral import allocate

PREFIX = st.builds(
    lambda base, length: str(ipaddress.ip_network((0x0A4D0000 + base, length), strict=False)),
    st.integers(0, 0xFFF),
    st.integers(26, 32),
)


def disjoint(prefixes: list[str]) -> list[str]:
    """Those that overlap none before them, as the API server and the pools' own status ask for."""
    kept: list[str] = []
    for prefix in prefixes:
        if allocate.overlapping([prefix], kept) is None:
            kept.append(prefix)
    return kept


PREFIXES = st.lists(PREFIX, max_size=3).map(disjoint)


def drained(prefixes: list[str], taken: set[str]) -> list[str]:
    """All that can be had, one after the other."""
    got: list[str] = []
    while (address := allocate.allocate(prefixes, lambda one: one in taken or one in got)) is not None:
        got.append(address)
    return got


@given(prefixes=PREFIXES)
def test_there_is_room_for_as_many_as_is_said(prefixes: list[str]) -> None:
    got = drained(prefixes, set())
    assert len(got) == len(set(got)) == allocate.capacity(prefixes)
    assert all(allocate.contains(prefixes, address) for address in got)
    assert len({allocate.ledger_name(address) for address in got}) == len(got)


@given(prefixes=PREFIXES, data=st.data())
def test_what_is_taken_is_never_given_and_the_first_free_one_is(prefixes: list[str], data: st.DataObject) -> None:
    every = drained(prefixes, set())
    taken = data.draw(st.sets(st.sampled_from(every)) if every else st.just(set[str]()))
    assert allocate.allocate(prefixes, taken.__contains__) == next((one for one in every if one not in taken), None)


@pytest.mark.parametrize(
    ("prefix", "first", "capacity"),
    [
        ("10.7.0.0/24", "10.7.0.1", 254),
        ("10.7.0.0/30", "10.7.0.1", 2),
        ("10.7.0.4/31", "10.7.0.4", 2),
        ("10.7.0.9/32", "10.7.0.9", 1),
    ],
)
def test_network_and_broadcast_are_kept_back(prefix: str, first: str, capacity: int) -> None:
    assert allocate.allocate([prefix], lambda _: False) == first
    assert allocate.capacity([prefix]) == capacity


@given(left=PREFIX, right=PREFIX)
def test_two_prefixes_overlap_where_they_share_an_address(left: str, right: str) -> None:
    shared = set(ipaddress.ip_network(left)) & set(ipaddress.ip_network(right))
    assert (allocate.overlapping([left], [right]) is not None) == bool(shared)
    assert (allocate.overlapping([right], [left]) is not None) == bool(shared)


def test_the_two_that_overlap_are_named() -> None:
    assert allocate.overlapping(["10.1.0.0/16", "10.2.0.0/16"], ["fd00::/8", "10.2.3.0/24"]) == (
        "10.2.0.0/16",
        "10.2.3.0/24",
    )


@given(address=st.ip_addresses(v=4) | st.ip_addresses(v=6), other=st.ip_addresses(v=4) | st.ip_addresses(v=6))
def test_the_ledger_has_one_name_an_address(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, other: ipaddress.IPv4Address | ipaddress.IPv6Address
) -> None:
    names = [allocate.ledger_name(str(one)) for one in (address, other)]
    assert (names[0] == names[1]) == (address == other)
    assert allocate.ledger_name(address.exploded) == names[0]


def test_the_ledgers_names() -> None:
    assert allocate.ledger_name("10.77.0.5") == "v4-10-77-0-5"
    assert allocate.ledger_name("fd00::5") == "v6-fd000000000000000000000000000005"
