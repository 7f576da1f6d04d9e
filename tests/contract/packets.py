"""Guests and the world outside as the other ends of taps: what they say is written here, octet by octet.

A tap's other end is a file: whatever is written to it comes in over the interface, as from a raw socket in a guest.
"""

from __future__ import annotations

import fcntl
import ipaddress
import os
import select
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass

from corral_drivers.link.model import HOST_MAC

IPV4, IPV6, ARP = 0x0800, 0x86DD, 0x0806
ICMP, TCP, UDP, ICMPV6 = 1, 6, 17, 58
SYN, ACK, PSH = 0x02, 0x10, 0x08
BROADCAST = "ff:ff:ff:ff:ff:ff"


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def packed(address: str) -> bytes:
    return ipaddress.ip_address(address).packed


def checksum(data: bytes) -> bytes:
    """RFC 1071."""
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return (~total & 0xFFFF).to_bytes(2, "big")


def ip(source: str, target: str, protocol: int, payload: bytes, *, hops: int = 64) -> bytes:
    """An IP packet of the addresses' version, with the checksums that it needs."""
    parts = packed(source), packed(target)
    place = {TCP: 16, UDP: 6, ICMPV6: 2, ICMP: 2}[protocol]
    pseudo = b"" if protocol == ICMP else b"".join(parts) + struct.pack("!II", len(payload), protocol)
    payload = payload[:place] + checksum(pseudo + payload) + payload[place + 2 :]
    if len(parts[0]) == 16:
        return struct.pack("!IHBB", 6 << 28, len(payload), protocol, hops) + b"".join(parts) + payload
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 1, 0, hops, protocol, 0) + b"".join(parts)
    return head[:10] + checksum(head) + head[12:] + payload


def udp(source: str, target: str, sport: int, dport: int, data: bytes = b"corral") -> bytes:
    return ip(source, target, UDP, struct.pack("!HHHH", sport, dport, 8 + len(data), 0) + data)


def tcp(source: str, target: str, sport: int, dport: int, flags: int, data: bytes = b"", *, at: int = 1) -> bytes:
    head = struct.pack("!HHIIBBHHH", sport, dport, at, 1 if flags & ACK else 0, 0x50, flags, 8192, 0, 0)
    return ip(source, target, TCP, head + data)


def echo(source: str, target: str, *, reply: bool = False, number: int = 7) -> bytes:
    """An echo request of the addresses' version of ICMP, or the reply to one."""
    if ":" in source:
        return ip(source, target, ICMPV6, struct.pack("!BBHHH", 129 if reply else 128, 0, 0, number, 1))
    return ip(source, target, ICMP, struct.pack("!BBHHH", 0 if reply else 8, 0, 0, number, 1))


def neighbour(kind: int, source: str, to: str, about: str, own: str) -> bytes:
    """A solicitation (135) or advertisement (136) about an address (RFC 4861), with the sender's MAC as its option."""
    option = b"" if source == "::" else struct.pack("!BB", 1 if kind == 135 else 2, 1) + mac(own)
    flags = 0 if kind == 135 else 0x6000_0000
    return ip(source, to, ICMPV6, struct.pack("!BBHI", kind, 0, 0, flags) + packed(about) + option, hops=255)


def arp(operation: int, sender_mac: str, sender: str, asked: str) -> bytes:
    """RFC 826."""
    head = struct.pack("!HHBBH", 1, IPV4, 6, 4, operation)
    return head + mac(sender_mac) + packed(sender) + bytes(6) + packed(asked)


@dataclass(frozen=True, slots=True)
class Packet:
    """A packet that came, as far as these tests look at it; `flags` are TCP's."""

    source: str
    target: str
    protocol: int
    sport: int = 0
    dport: int = 0
    flags: int = 0
    body: bytes = b""


def read(frame: bytes) -> Packet | None:
    """The IP packet in a frame; None where there is none."""
    kind, data = int.from_bytes(frame[12:14], "big"), frame[14:]
    if kind not in (IPV4, IPV6):
        return None
    if kind == IPV4:
        protocol, source, target, body = data[9], data[12:16], data[16:20], data[20:]
    else:
        protocol, source, target, body = data[6], data[8:24], data[24:40], data[40:]
    sport, dport = struct.unpack("!HH", body[:4]) if protocol in (TCP, UDP) else (body[0], 0)
    flags = body[13] if protocol == TCP else 0
    shown = str(ipaddress.ip_address(source)), str(ipaddress.ip_address(target))
    return Packet(*shown, protocol, sport, dport, flags, body)


class Wire:
    """The other end of a tap: a guest, or the router of the world outside."""

    def __init__(self, interface: str, own: str) -> None:
        self.interface, self.mac = interface, own
        self._file = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        request = struct.pack("=16sH22x", interface.encode(), 0x2 | 0x1000)
        fcntl.ioctl(self._file, 0x400454CA, request)

    def close(self) -> None:
        os.close(self._file)

    def frame(self, kind: int, payload: bytes, *, source: str = "", to: str = HOST_MAC) -> None:
        """Send it, from the own MAC unless another one is given."""
        os.write(self._file, mac(to) + mac(source or self.mac) + kind.to_bytes(2, "big") + payload)

    def send(self, packet: bytes, *, source: str = "", to: str = HOST_MAC) -> None:
        """Send an IP packet."""
        self.frame(IPV6 if packet[0] >> 4 == 6 else IPV4, packet, source=source, to=to)

    def frames(self, is_last: Callable[[bytes], bool], within: float = 5.0) -> list[bytes]:
        """What comes, up to and with the frame that is waited for; TimeoutError."""
        found: list[bytes] = []
        until = time.monotonic() + within
        while (left := until - time.monotonic()) > 0 and select.select([self._file], [], [], left)[0]:
            found.append(os.read(self._file, 65536))
            if is_last(found[-1]):
                return found
        raise TimeoutError(f"{self.interface}: what was waited for did not come, but {len(found)} others: {found}")

    def drain(self) -> None:
        """Forget what came until now."""
        while select.select([self._file], [], [], 0)[0]:
            os.read(self._file, 65536)

    def until(self, port: int, within: float = 5.0) -> list[Packet]:
        """The IP packets that come before a UDP packet to this port."""

        def is_last(frame: bytes) -> bool:
            packet = read(frame)
            return packet is not None and packet.protocol == UDP and packet.dport == port

        packets = [packet for frame in self.frames(is_last, within)[:-1] if (packet := read(frame))]
        return [packet for packet in packets if not _is_of_the_link(packet)]


def _is_of_the_link(packet: Packet) -> bool:
    """What the kernel says by itself: neighbour discovery, and MLD behind a hop-by-hop header."""
    return packet.protocol == 0 or (packet.protocol == ICMPV6 and packet.body[0] in range(130, 144))
