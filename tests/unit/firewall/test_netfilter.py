"""What the kernel says of connections and generations, as octets."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from corral_drivers import rtnetlink
from corral_drivers.firewall.model import Flow
from corral_drivers.firewall.nft import netfilter

attribute = rtnetlink.attribute


def end(source: str, destination: str, protocol: bytes) -> bytes:
    version = 0 if ":" not in source else 2
    addresses = attribute(1 + version, netfilter.needle(source)) + attribute(2 + version, netfilter.needle(destination))
    return attribute(0x8001, addresses) + attribute(0x8002, protocol)


def test_a_connection_is_read_and_the_very_same_is_deleted() -> None:
    ports = attribute(1, b"\x06") + attribute(2, b"\x03\xe7") + attribute(3, b"\x00\x50")
    back = attribute(1, b"\x06") + attribute(2, b"\x00\x50") + attribute(3, b"\x03\xe7")
    original = end("10.77.0.5", "192.0.2.1", ports)
    body = (
        struct.pack("=BBH", 2, 0, 0)
        + attribute(0x8001, original)
        + attribute(0x8002, end("192.0.2.1", "100.87.0.1", back))
        + attribute(12, b"\x01\x02\x03\x04")
    )
    assert netfilter.flow(body) == Flow(6, "10.77.0.5", "192.0.2.1", 999, 80, "192.0.2.1", "100.87.0.1")
    assert netfilter.deleted(body) == (
        struct.pack("=BBH", 2, 0, 0) + attribute(0x8001, original) + attribute(12, b"\x01\x02\x03\x04")
    )


def test_of_icmp_type_and_code_are_read() -> None:
    asked = attribute(1, b"\x3a") + attribute(7, b"\0\7") + attribute(8, b"\x80") + attribute(9, b"\x01")
    body = struct.pack("=BBH", 10, 0, 0) + attribute(0x8001, end("fd77::5", "fd77::6", asked))
    body += attribute(0x8002, end("fd77::6", "fd77::5", asked))
    assert netfilter.flow(body) == Flow(58, "fd77::5", "fd77::6", 1, 128, "fd77::6", "fd77::5")


def test_whose_change_it_is() -> None:
    table = b"corral.c.h"
    told = struct.pack("=BBH", 1, 0, 0) + attribute(1, table + b"\0")
    other = struct.pack("=BBH", 1, 0, 0) + attribute(1, table + b"2\0") + attribute(2, table)
    assert netfilter.is_of(10 << 8, told, table)
    assert not netfilter.is_of(10 << 8, other, table)
    assert not netfilter.is_of(1 << 8, told, table)
    assert netfilter.generation(bytes(4) + attribute(1, b"\0\0\1\0") + attribute(2, b"\0\0\0\7")) == (256, 7)


@given(st.binary(max_size=200))
def test_no_octets_raise(body: bytes) -> None:
    netfilter.is_of(10 << 8, b"\0\0\0\0" + body, b"corral")
    netfilter.generation(b"\0\0\0\0" + body)
