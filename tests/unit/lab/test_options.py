"""What a lab is made of: its addresses, and the prefixes that can't be had together."""

from __future__ import annotations

import dataclasses
import ipaddress
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral_lab import errors
from corral_lab.options import Loopback, Options, twin

V4, V6 = ipaddress.IPv4Network, ipaddress.IPv6Network
MANAGEMENT = V4("100.88.0.0/24")


def test_the_default_lab_has_the_addresses_of_the_documentation() -> None:
    options = Options(hosts=3)
    options.check()
    assert str(options.address) == "100.88.0.1"
    assert str(options.host_address(3)) == "100.88.0.13"
    assert options.machine_loopback == _loopback("100.87.0.1", "fd00:100:87::1")
    assert options.spine_loopback(2) == _loopback("100.87.0.3", "fd00:100:87::3")
    assert options.host_loopback(3) == _loopback("100.87.0.13", "fd00:100:87::d")
    assert options.guests6 == V6("fd00:10:77::/64")


def _loopback(v4: str, v6: str) -> Loopback:
    return Loopback(ipaddress.IPv4Address(v4), ipaddress.IPv6Address(v6))


@given(st.integers(1, 16), st.integers(0, 2))
def test_no_two_of_a_lab_have_one_address(hosts: int, spine: int) -> None:
    options = Options(hosts=hosts)
    spines = [options.spine_loopback(number) for number in range(1, spine + 1)]
    everybody = [options.machine_loopback, *spines, *(options.host_loopback(number) for number in range(1, hosts + 1))]
    assert len({each.v4 for each in everybody}) == len({each.v6 for each in everybody}) == len(everybody)


def test_an_ipv6_prefix_is_the_one_asked_for() -> None:
    options = Options(asked_guests6=V6("fd77::/112"), asked_loopbacks6=V6("fd87::/64"))
    assert (options.guests6, options.loopbacks6) == (V6("fd77::/112"), V6("fd87::/64"))
    assert str(options.host_loopback(1).v6) == "fd87::b"
    assert twin(V4("10.77.0.0/24")) == V6("fd00:10:77::/64")
    assert twin(V4("192.168.1.128/25")) == V6("fd00:192:168:1::/64")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (Options(guests=MANAGEMENT), "management prefix 100.88.0.0/24 and the prefix of the guests"),
        (Options(loopbacks=V4("100.88.0.128/25")), "management prefix 100.88.0.0/24 and the prefix of the loopbacks"),
        (Options(loopbacks=V4("10.0.0.0/8")), "prefix of the guests 10.77.0.0/24 and the prefix of the loopbacks"),
        (Options(asked_guests6=V6("fd00:100::/32")), "overlap"),
        (Options(hosts=3, management=V4("100.88.0.0/29")), "management prefix 100.88.0.0/29 is too small for 3"),
        (Options(hosts=6, loopbacks=V4("100.87.0.0/28")), "prefix of the loopbacks 100.87.0.0/28 is too small for 6"),
        (Options(hosts=6, asked_loopbacks6=V6("fd87::/124")), "loopbacks fd87::/124 is too small for 6"),
    ],
)
def test_prefixes_that_can_not_be_had_are_refused(options: Options, says: str) -> None:
    with pytest.raises(errors.LabError, match=says) as raised:
        options.check()
    assert "--" in raised.value.next_step


@pytest.mark.parametrize(
    "options", [Options(), Options(2, MANAGEMENT, V4("10.78.0.0/24"), V4("10.79.0.0/24"), V6("fd77::/64"), None)]
)
def test_a_lab_remembers_its_options(options: Options) -> None:
    assert Options.read(json.loads(json.dumps(options.wire()))) == options


def test_a_lab_of_an_earlier_version_has_the_defaults_of_what_that_did_not_know() -> None:
    kept = {"hosts": 2, "management": "100.90.0.0/24", "guests": "10.79.0.0/24"}
    told = Options.read(kept)
    assert told == dataclasses.replace(Options(), hosts=2, management=V4("100.90.0.0/24"), guests=V4("10.79.0.0/24"))
