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


@given(prefixes=PREFIXES)
def test_there_is_room_for_as_many_as_is_said(prefixes: list[str]) -> None:
    every = [str(one) for prefix in prefixes for one in ipaddress.ip_network(prefix).hosts()]
    assert len(every) == allocate.capacity(prefixes)
    assert all(allocate.contains(prefixes, address) for address in every)
    assert len({allocate.ledger_name(address) for address in every}) == len(every)


@pytest.mark.parametrize(
    ("prefix", "first", "capacity"),
    [
        ("10.7.0.0/24", "10.7.0.1", 254),
        ("10.7.0.0/30", "10.7.0.1", 2),
        ("10.7.0.4/31", "10.7.0.4", 2),
        ("10.7.0.9/32", "10.7.0.9", 1),
        ("fd77::/112", "fd77::1", 65535),
        ("fd77::/64", "fd77::1", allocate.MOST_TOLD),
        ("fd77::2/127", "fd77::2", 2),
    ],
)
def test_network_and_broadcast_are_kept_back(prefix: str, first: str, capacity: int) -> None:
    network = ipaddress.ip_network(prefix)
    usable = (address for address in network if int(address) not in allocate.kept_back(network))
    assert str(next(usable)) == first
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


def test_names_are_what_the_api_server_makes_unique() -> None:
    assert allocate.block_name("10.77.0.0/26") == "v4-10-77-0-0-26"
    assert allocate.block_name("fd77::/112") == f"v6-fd77{'0' * 28}-112"
    assert allocate.ledger_name("fd77::5") == f"v6-fd77{'0' * 27}5"


def test_prefixes_are_put_in_order_as_they_are_shown() -> None:
    assert allocate.ordered(["FD00::/64", "10.7.1.0/24", "10.7.0.0/24", "fd00:0::/64"]) == [
        "10.7.0.0/24",
        "10.7.1.0/24",
        "fd00::/64",
    ]
