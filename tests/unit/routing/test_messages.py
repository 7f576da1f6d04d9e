"""What is said to the kernel about routes and neighbours: golden octets, and that every request reads back."""

from __future__ import annotations

import ipaddress
import pathlib
import socket
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral_drivers import errors, rtnetlink
from corral_drivers.routing import messages, values
from corral_drivers.routing.model import PROTOCOL, Neighbour, Route

GOLDEN = pathlib.Path(__file__).parent / "golden"
MAIN = 254

addresses = st.ip_addresses()
indices = st.integers(1, 2**31 - 1)
macs = st.binary(min_size=6, max_size=6).map(lambda octets: octets.hex(":"))


@given(addresses, indices, st.integers(1, 2**32 - 1))
def test_a_route_reads_back_as_it_was_rendered(address: messages.Address, index: int, table: int) -> None:
    route = messages.IndexedRoute(ipaddress.ip_network(address), index)
    assert messages.parse_route(messages.route(route, table), table) == route
    assert messages.parse_route(messages.route(route, table), table + 1) is None


@given(st.ip_addresses(), st.integers(0, 32), st.integers(1, 2**32 - 1))
def test_a_blackhole_reads_back_as_it_was_rendered_and_is_no_route(
    address: messages.Address, length: int, table: int
) -> None:
    network = ipaddress.ip_network(f"{address}/{length}", strict=False)
    body = messages.blackhole(network, table)
    assert messages.parse_blackhole(body, table) == network
    assert messages.parse_blackhole(body, table - 1) is None
    assert messages.parse_route(body, table) is None
    assert messages.concerned(messages.DELETE_ROUTE, body, table) == 0
    route = messages.route(messages.IndexedRoute(ipaddress.ip_network(address), 7), table)
    assert messages.parse_blackhole(route, table) is None


@given(addresses, macs, indices)
def test_a_neighbour_reads_back_as_it_was_rendered(address: messages.Address, mac: str, index: int) -> None:
    neighbour = messages.IndexedNeighbour(address, mac, index)
    assert messages.parse_neighbour(messages.neighbour(neighbour)) == neighbour


@given(st.dictionaries(st.integers(1, 0x3FFF), st.binary(max_size=40)))
def test_attributes_read_back_as_they_were_rendered(values: dict[int, bytes]) -> None:
    body = b"head" + b"".join(rtnetlink.attribute(kind, value) for kind, value in values.items())
    assert rtnetlink.attributes(body, 4) == values


@given(st.binary(max_size=80))
def test_octets_that_are_no_attributes_end_the_reading(body: bytes) -> None:
    assert len(rtnetlink.attributes(body, 0)) <= len(body) // 4


@pytest.mark.skipif(sys.byteorder != "little", reason="the golden file has the octets of a little-endian machine")
def test_requests_are_what_they_were() -> None:
    four, six = ipaddress.ip_address("10.77.0.5"), ipaddress.ip_address("fd00::5")
    requests = {
        "route 4": messages.route(messages.IndexedRoute(ipaddress.ip_network("10.77.0.5/32"), 7), MAIN),
        "route 6": messages.route(messages.IndexedRoute(ipaddress.ip_network("fd00::5/128"), 7), MAIN),
        "routes": messages.routes(socket.AF_INET, MAIN, 7),
        "blackhole 4": messages.blackhole(ipaddress.ip_network("10.77.0.0/26"), MAIN),
        "blackhole 6": messages.blackhole(ipaddress.ip_network("fd77::/112"), MAIN),
        "blackholes": messages.blackholes(socket.AF_INET, MAIN),
        "neighbour 4": messages.neighbour(messages.IndexedNeighbour(four, "02:00:00:00:00:01", 7)),
        "neighbour 6": messages.neighbour(messages.IndexedNeighbour(six, "02:00:00:00:00:01", 7)),
        "one neighbour": messages.one_neighbour(four, 7),
        "neighbours": messages.neighbours(socket.AF_INET6, 7),
    }
    text = "".join(f"{name}\n{request.hex(' ', 4)}\n" for name, request in requests.items())
    assert text == (GOLDEN / "messages.txt").read_text()


@pytest.mark.parametrize("prefix", ["", "10.77.0.5", "10.77.0.5/24", "10.77.0.300/32", "FD00::5/128", "fd00:0::5/128"])
def test_a_prefix_that_the_kernel_would_show_otherwise_is_rejected(prefix: str) -> None:
    with pytest.raises(errors.Rejected):
        values.network(Route(prefix, "tap0"))


@pytest.mark.parametrize(
    ("address", "mac"),
    [
        ("10.77.0.5/32", "02:00:00:00:00:01"),
        ("fd00:0::5", "02:00:00:00:00:01"),
        ("10.77.0.5", "02:00:00:00:00:AA"),
        ("10.77.0.5", "02-00-00-00-00-01"),
        ("10.77.0.5", ""),
    ],
)
def test_a_neighbour_that_the_kernel_would_show_otherwise_is_rejected(address: str, mac: str) -> None:
    with pytest.raises(errors.Rejected):
        values.address(Neighbour(address, mac, "tap0"))


@given(addresses, macs, indices)
def test_a_watch_is_concerned_with_ours_alone(address: messages.Address, mac: str, index: int) -> None:
    route = messages.route(messages.IndexedRoute(ipaddress.ip_network(address), index), MAIN)
    neighbour = messages.neighbour(messages.IndexedNeighbour(address, mac, index))
    for kind, body in (
        (messages.NEW_ROUTE, route),
        (messages.DELETE_ROUTE, route),
        (messages.NEW_NEIGHBOUR, neighbour),
        (messages.DELETE_NEIGHBOUR, neighbour),
    ):
        assert messages.concerned(kind, body, MAIN) == index
    assert messages.concerned(messages.NEW_ROUTE, route, MAIN + 1) is None
    foreign = route[:5] + bytes([PROTOCOL + 1]) + route[6:]
    assert messages.concerned(messages.DELETE_ROUTE, foreign, MAIN) is None
    assert messages.concerned(messages.DELETE_NEIGHBOUR, messages.one_neighbour(address, index), MAIN) is None
    assert messages.concerned(messages.GET_ROUTE, route, MAIN) is None
