"""DHCP's answers: one address, for ever, and how to get out from a /32. Pure.

RFC 2131 (states), 2132 (options), 3397 (search domains), 3442 (routes), 4039 (rapid commit), 6842 (client's identity).
A request is read once, from its first octet to its last; what is malformed has no answer.
"""

from __future__ import annotations

import enum
import ipaddress
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from corral_drivers.dhcp import domains
from corral_drivers.dhcp.model import INFINITE, Answer, Gateway

SERVER, CLIENT = 67, 68

_FIXED = struct.Struct("!BBBBIHH4s4s4s4s16s192x4s")
"""Operation, hardware type and length, hops, transaction, seconds, flags; the client's, your, the next server's and the
relay's address; the hardware address; server's name and file, which are not used; the cookie."""

_COOKIE = b"\x63\x82\x53\x63"
_REQUEST, _REPLY, _ETHERNET, _NOWHERE = 1, 2, 1, bytes(4)
_BROADCAST = 0x8000
_EVERYBODY = ipaddress.IPv4Address("255.255.255.255")
_LEAST, _HEADERS, _LARGEST = 576, 28, 1500
_LEAST_MESSAGE = 300
"""What BOOTP's messages are at least (RFC 1542 2.1): some clients take no shorter one."""


class Option(enum.IntEnum):
    """Those that are read or written (RFC 2132)."""

    PAD = 0
    MASK = 1
    ROUTER = 3
    DNS = 6
    HOSTNAME = 12
    DOMAIN = 15
    MTU = 26
    ADDRESS = 50
    LEASE = 51
    MESSAGE = 53
    SERVER = 54
    LARGEST = 57
    CLIENT = 61
    RAPID_COMMIT = 80
    SEARCH = 119
    ROUTES = 121
    END = 255


class Message(enum.IntEnum):
    """Types of messages."""

    DISCOVER = 1
    OFFER = 2
    REQUEST = 3
    ACK = 5
    NAK = 6
    INFORM = 8


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asks: its own address where it has one, and the options by their number."""

    transaction: int
    flags: int
    has: bytes
    hardware: bytes
    options: dict[int, bytes]

    @property
    def kind(self) -> int:
        """The type of the message; 0 of one that has none, as before DHCP was there."""
        value = self.options.get(Option.MESSAGE, b"")
        return value[0] if len(value) == 1 else 0


@dataclass(frozen=True, slots=True)
class Reply:
    """A message for the client, and to which address it goes."""

    destination: ipaddress.IPv4Address
    message: bytes


def parse(data: bytes) -> Request | None:
    """A client's message; None where it is none, comes by a relay, or is cut short."""
    if len(data) < _FIXED.size:
        return None
    operation, kind, length, _, transaction, _, flags, has, _, _, relay, hardware, cookie = _FIXED.unpack_from(data)
    options = _options(data[_FIXED.size :])
    if (operation, kind, length, relay, cookie) != (_REQUEST, _ETHERNET, 6, _NOWHERE, _COOKIE) or options is None:
        return None
    return Request(transaction, flags, has, hardware[:6], options)


def answer(said: Answer, gateway: Gateway, data: bytes) -> Reply | None:
    """What the guest is told; None where there is nothing to say to it."""
    address, request = said.ipv4, parse(data)
    if address is None or request is None or request.hardware != bytes.fromhex(said.mac.replace(":", "")):
        return None
    kind = _kind(request, address, gateway)
    if kind is None:
        return None
    options = list(_told(request, kind, gateway))
    if kind is Message.NAK:
        return Reply(_EVERYBODY, _message(request, options, _LEAST))
    options += _settings(said, address, gateway, with_lease=request.kind != Message.INFORM)
    given = _NOWHERE if request.kind == Message.INFORM else address.packed
    message = _message(request, options, _room(said, request), has=request.has, given=given)
    if request.has != _NOWHERE:
        return Reply(ipaddress.IPv4Address(request.has), message)
    return Reply(_EVERYBODY if request.flags & _BROADCAST else address, message)


def _kind(request: Request, address: ipaddress.IPv4Address, gateway: Gateway) -> Message | None:
    """RFC 2131 4.3: what kind of message answers this one, None for none."""
    options = request.options
    if request.kind == Message.DISCOVER:
        return Message.ACK if Option.RAPID_COMMIT in options else Message.OFFER
    if request.kind == Message.INFORM:
        return Message.ACK if request.has != _NOWHERE else None
    # Somebody else was chosen; a guest that was on another network asks nobody by name.
    if request.kind != Message.REQUEST or options.get(Option.SERVER, gateway.ipv4.packed) != gateway.ipv4.packed:
        return None
    return Message.ACK if options.get(Option.ADDRESS, request.has) == address.packed else Message.NAK


def _message(
    request: Request, options: list[tuple[int, bytes]], room: int, *, has: bytes = _NOWHERE, given: bytes = _NOWHERE
) -> bytes:
    fixed = _FIXED.pack(
        *(_REPLY, _ETHERNET, 6, 0, request.transaction, 0, request.flags),
        *(has, given, _NOWHERE, _NOWHERE, request.hardware.ljust(16, b"\0"), _COOKIE),
    )
    return (fixed + _packed(options, room - _HEADERS - len(fixed))).ljust(_LEAST_MESSAGE, b"\0")


def _told(request: Request, kind: Message, gateway: Gateway) -> Iterator[tuple[int, bytes]]:
    yield Option.MESSAGE, bytes([kind])
    yield Option.SERVER, gateway.ipv4.packed
    if Option.CLIENT in request.options:
        yield Option.CLIENT, request.options[Option.CLIENT]
    if request.kind == Message.DISCOVER and kind is Message.ACK:
        yield Option.RAPID_COMMIT, b""


def _settings(
    said: Answer, address: ipaddress.IPv4Address, gateway: Gateway, *, with_lease: bool
) -> Iterator[tuple[int, bytes]]:
    """In the order of their weight: what has no room in a small message is left out from the end.

    A lease without end needs no times to renew it at, and the address is alone on its link.
    """
    if with_lease:
        yield Option.LEASE, INFINITE.to_bytes(4, "big")
    yield Option.MASK, b"\xff\xff\xff\xff"
    if said.leads_out:
        yield Option.ROUTES, b"\x20" + gateway.ipv4.packed + _NOWHERE + b"\x00" + gateway.ipv4.packed
        yield Option.ROUTER, gateway.ipv4.packed
    yield Option.MTU, said.mtu.to_bytes(2, "big")
    if said.dns_ipv4:
        yield Option.DNS, b"".join(server.packed for server in said.dns_ipv4)
    yield Option.HOSTNAME, said.hostname.encode()
    if said.search_domains:
        yield Option.DOMAIN, said.search_domains[0].encode()
        for count in range(len(said.search_domains), 0, -1):
            yield Option.SEARCH, b"".join(domains.encode(name) for name in said.search_domains[:count])


def _room(said: Answer, request: Request) -> int:
    """How large the packet may be: as the client says, and at least as everyone takes (RFC 2132 9.10)."""
    asked = int.from_bytes(request.options.get(Option.LARGEST, b"")[:2], "big")
    return max(min(asked, said.mtu, _LARGEST), _LEAST)


def _packed(options: list[tuple[int, bytes]], room: int) -> bytes:
    """The options that have room, each number once, longer ones than 255 octets in pieces (RFC 3396)."""
    packed, seen = b"", set[int]()
    for number, value in options:
        pieces = [value[start : start + 255] for start in range(0, len(value), 255)] or [b""]
        one = b"".join(bytes([number, len(piece)]) + piece for piece in pieces)
        if number not in seen and len(packed) + len(one) < room:
            packed += one
            seen.add(number)
    return packed + bytes([Option.END])


def _options(data: bytes) -> dict[int, bytes] | None:
    """Options by number, pieces of one put together (RFC 3396); None where one is longer than there is."""
    found: dict[int, bytes] = {}
    start = 0
    while start < len(data) and data[start] != Option.END:
        if data[start] == Option.PAD:
            start += 1
            continue
        end = start + 2 + data[start + 1] if start + 1 < len(data) else len(data) + 1
        if end > len(data):
            return None
        found[data[start]] = found.get(data[start], b"") + data[start + 2 : end]
        start = end
    return found
