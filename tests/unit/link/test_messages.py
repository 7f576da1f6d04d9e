"""What is said to the kernel about taps: golden octets, and that an answer reads back."""

from __future__ import annotations

import ipaddress
import pathlib
import sys

import pytest

from corral_drivers import errors
from corral_drivers.link import messages, names
from corral_drivers.link.model import Cause, Tap
from corral_drivers.link.port import Settings

GOLDEN = pathlib.Path(__file__).parent / "golden"
SETTINGS = Settings(cloud="c1", host="h1")


@pytest.mark.skipif(sys.byteorder != "little", reason="the golden file has the octets of a little-endian machine")
def test_requests_are_what_they_were() -> None:
    requests = {
        "by_name": messages.by_name("tap0"),
        "every_tap": messages.every_tap(),
        "fit": messages.fit(7, 1400, names.mark(SETTINGS, "9f0c")),
        "set_up": messages.set_up(7),
        "in_group": messages.in_group(7, 1000),
        "whole_group": messages.whole_group(1000),
        "one": messages.one(7),
        "gateway": messages.gateway(ipaddress.IPv4Address("169.254.1.1"), 1),
        "gateway6": messages.gateway6(7),
        "addresses6": messages.addresses6(7),
        "by_index": messages.by_index(7),
    }
    text = "".join(f"{name}\n{request.hex(' ', 4)}\n" for name, request in requests.items())
    assert text == (GOLDEN / "messages.txt").read_text()


def test_what_we_ask_for_reads_back() -> None:
    link = messages.parse(messages.fit(7, 1400, "corral:c1:h1:9f0c"))
    assert (link.index, link.mtu, link.alias, link.mac) == (7, 1400, "corral:c1:h1:9f0c", "ee:ee:ee:ee:ee:ee")


def test_the_gateway_reads_back_and_no_other_address_does() -> None:
    body = messages.gateway6(7)
    assert messages.parse_gateway6(body) == 7
    other = ipaddress.IPv6Address("fe80::2").packed
    assert messages.parse_gateway6(body.replace(ipaddress.IPv6Address("fe80::1").packed, other)) is None
    assert messages.parse_gateway6(messages.gateway(ipaddress.IPv4Address("169.254.1.1"), 7)) is None


@pytest.mark.parametrize("name", ["", "sixteen-letters-", "a/b", "a b", "a:b", "tap%d", "..", "."])
def test_a_name_that_no_interface_can_have_is_rejected(name: str) -> None:
    with pytest.raises(errors.Rejected) as refused:
        names.check(Tap(name, "9f0c", 1500), SETTINGS)
    assert refused.value.cause is Cause.FAILED


@pytest.mark.parametrize(
    "tap", [Tap("tap0", "9f0c", 67), Tap("tap0", "9f0c", 65522), Tap("tap0", "", 1500), Tap("tap0", "x" * 255, 1500)]
)
def test_an_mtu_or_owner_that_no_tap_can_have_is_rejected(tap: Tap) -> None:
    with pytest.raises(errors.Rejected):
        names.check(tap, SETTINGS)
