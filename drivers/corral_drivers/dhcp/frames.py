"""Ethernet, IP and UDP around what guests ask and are answered: read with bounds, written with sums. Pure.

A question's sums are not looked at: it comes through memory, not over a wire, and a guest with checksum offload does
not fill them in. Layouts: RFC 791, 768, 8200, 4443.
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass

IPV4, IPV6 = 0x0800, 0x86DD
UDP, ICMPV6 = 17, 58

_ETHERNET = struct.Struct("!6s6sH")
_IPV4 = struct.Struct("!BBHHHBBH4s4s")
_IPV6 = struct.Struct("!IHBB16s16s")
_UDP = struct.Struct("!HHHH")
_PSEUDO_V4, _PSEUDO_V6 = struct.Struct("!4s4sBBH"), struct.Struct("!16s16sII")
_DONT_FRAGMENT, _FRAGMENTED = 0x4000, 0x3FFF
_TTL, _ONE_HOP = 64, 255


@dataclass(frozen=True, slots=True)
class Question:
    """What came in: from which MAC and address to which address; `port` is UDP's destination, 0 for ICMPv6."""

    mac: bytes
    source: bytes
    destination: bytes
    port: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Header:
    """Where an answer goes from and to; the families of both are the same."""

    mac: bytes
    to_mac: bytes
    source: ipaddress.IPv4Address | ipaddress.IPv6Address
    destination: ipaddress.IPv4Address | ipaddress.IPv6Address


def parse(frame: bytes) -> Question | None:
    """The question in a whole frame; None for anything that is no UDP and no ICMPv6 of one hop, or is cut short."""
    if len(frame) < _ETHERNET.size:
        return None
    _, mac, kind = _ETHERNET.unpack_from(frame)
    packet = frame[_ETHERNET.size :]
    if kind == IPV4:
        return _ipv4(mac, packet)
    return _ipv6(mac, packet) if kind == IPV6 else None


def udp(header: Header, ports: tuple[int, int], body: bytes) -> bytes:
    """The frame of one datagram, `ports` being from and to."""
    length = _UDP.size + len(body)
    bare = _UDP.pack(*ports, length, 0) + body
    # A sum of zero would say that there is none (RFC 768).
    summed = _checksum(_pseudo(header, UDP, length) + bare) or 0xFFFF
    return _wrapped(header, UDP, _UDP.pack(*ports, length, summed) + body)


def icmpv6(header: Header, kind: int, body: bytes) -> bytes:
    """The frame of one ICMPv6 message with the code 0; `body` is what follows the sum."""
    length = 4 + len(body)
    bare = struct.pack("!BBH", kind, 0, 0) + body
    summed = _checksum(_pseudo(header, ICMPV6, length) + bare)
    return _wrapped(header, ICMPV6, struct.pack("!BBH", kind, 0, summed) + body)


def _ipv4(mac: bytes, packet: bytes) -> Question | None:
    if len(packet) < _IPV4.size:
        return None
    version, _, total, _, fragment, _, protocol, _, source, destination = _IPV4.unpack_from(packet)
    length = (version & 0x0F) * 4
    is_whole = version >> 4 == 4 and _IPV4.size <= length <= total <= len(packet)
    if not is_whole or protocol != UDP or fragment & _FRAGMENTED:
        return None
    return _udp(mac, source, destination, packet[length:total])


def _ipv6(mac: bytes, packet: bytes) -> Question | None:
    if len(packet) < _IPV6.size:
        return None
    first, length, following, hops, source, destination = _IPV6.unpack_from(packet)
    if first >> 28 != 6 or _IPV6.size + length > len(packet):
        return None
    body = packet[_IPV6.size : _IPV6.size + length]
    if following == UDP:
        return _udp(mac, source, destination, body)
    # Of one hop: what a router passed on would have less (RFC 4861 6.1.1).
    return Question(mac, source, destination, 0, body) if following == ICMPV6 and hops == _ONE_HOP else None


def _udp(mac: bytes, source: bytes, destination: bytes, datagram: bytes) -> Question | None:
    if len(datagram) < _UDP.size:
        return None
    _, port, length, _ = _UDP.unpack_from(datagram)
    if port == 0 or not _UDP.size <= length <= len(datagram):
        return None
    return Question(mac, source, destination, port, datagram[_UDP.size : length])


def _pseudo(header: Header, protocol: int, length: int) -> bytes:
    source, destination = header.source.packed, header.destination.packed
    if header.source.version == 4:
        return _PSEUDO_V4.pack(source, destination, 0, protocol, length)
    return _PSEUDO_V6.pack(source, destination, length, protocol)


def _wrapped(header: Header, protocol: int, payload: bytes) -> bytes:
    source, destination = header.source.packed, header.destination.packed
    if header.source.version == 4:
        fields = (0x45, 0, _IPV4.size + len(payload), 0, _DONT_FRAGMENT, _TTL, protocol)
        summed = _checksum(_IPV4.pack(*fields, 0, source, destination))
        packet = _IPV4.pack(*fields, summed, source, destination)
        kind = IPV4
    else:
        packet = _IPV6.pack(6 << 28, len(payload), protocol, _ONE_HOP, source, destination)
        kind = IPV6
    return _ETHERNET.pack(header.to_mac, header.mac, kind) + packet + payload


def _checksum(data: bytes) -> int:
    """The Internet's sum (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
