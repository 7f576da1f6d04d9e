"""DHCPv6's answers: the guest's addresses without end, DNS servers, search domains. Pure.

RFC 8415 (messages in 7.3, what a server does in 18.3), RFC 3646 (DNS). The server's identity is the host's MAC, which
is the same on every host: a guest that moved renews what it has. What is malformed has no answer.
"""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass

from corral_drivers.dhcp import domains
from corral_drivers.dhcp.model import INFINITE, Answer, Gateway

SERVER, CLIENT = 547, 546
SERVERS = ipaddress.IPv6Address("ff02::1:2")
"""Where every client asks: All_DHCP_Relay_Agents_and_Servers."""

_FOR_EVER = INFINITE.to_bytes(4, "big")
_LONGEST_IDENTITY = 130
_MOST_OPTIONS, _MOST_ASSOCIATIONS, _MOST_STALE = 64, 4, 2
_DOMAINS = 480
"""Octets for search domains: with all else that can be asked for an answer stays within the least MTU, 1,280."""


class Option(enum.IntEnum):
    """Those that are read or written (RFC 8415 21, RFC 3646)."""

    CLIENT = 1
    SERVER = 2
    ASSOCIATION = 3
    TEMPORARY = 4
    ADDRESS = 5
    STATUS = 13
    RAPID_COMMIT = 14
    DNS = 23
    SEARCH = 24
    DELEGATION = 25


class Message(enum.IntEnum):
    """Types of messages (RFC 8415 7.3)."""

    SOLICIT = 1
    ADVERTISE = 2
    REQUEST = 3
    CONFIRM = 4
    RENEW = 5
    REBIND = 6
    REPLY = 7
    RELEASE = 8
    DECLINE = 9
    INFORMATION = 11


class Status(enum.IntEnum):
    """Status codes (RFC 8415 21.13)."""

    SUCCESS = 0
    NO_ADDRESS = 2
    NOT_ON_LINK = 4
    NO_PREFIX = 6


_NAMES_NO_SERVER = frozenset({Message.SOLICIT, Message.CONFIRM, Message.REBIND})
_GIVES = frozenset({Message.SOLICIT, Message.REQUEST, Message.RENEW, Message.REBIND})


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asks: the type, the transaction's three octets, and the options in their order."""

    kind: Message
    transaction: bytes
    options: tuple[tuple[int, bytes], ...]

    def first(self, number: int) -> bytes | None:
        """The first option of this number."""
        return next((value for found, value in self.options if found == number), None)


def parse(data: bytes) -> Request | None:
    """A client's message; None where it is none or is cut short."""
    if len(data) < 4 or data[0] not in set(Message) - {Message.ADVERTISE, Message.REPLY}:
        return None
    options = _options(data[4:])
    return None if options is None else Request(Message(data[0]), data[1:4], options)


def identity(gateway: Gateway) -> bytes:
    """The server's DUID: by its link-layer address (RFC 8415 11.4)."""
    return b"\0\x03\0\x01" + gateway.mac


def answer(said: Answer, gateway: Gateway, data: bytes) -> bytes | None:
    """What the guest is told; None where there is nothing to say to it."""
    request = parse(data)
    if request is None or not said.ipv6 or not _is_for_us(request, gateway):
        return None
    is_quick = request.kind is Message.SOLICIT and request.first(Option.RAPID_COMMIT) is not None
    kind = Message.ADVERTISE if request.kind is Message.SOLICIT and not is_quick else Message.REPLY
    told = list(_told(said, request))
    if not told and request.kind is Message.CONFIRM:
        return None
    client = request.first(Option.CLIENT)
    options: list[tuple[int, bytes]] = [] if client is None else [(Option.CLIENT, client)]
    options += [(Option.SERVER, identity(gateway)), *told]
    if is_quick:
        options.append((Option.RAPID_COMMIT, b""))
    return bytes([kind]) + request.transaction + b"".join(_option(*one) for one in options)


def _is_for_us(request: Request, gateway: Gateway) -> bool:
    """RFC 8415 16: who must say which server it means, and who it is itself."""
    server, client = request.first(Option.SERVER), request.first(Option.CLIENT)
    if client is None or len(client) > _LONGEST_IDENTITY:
        return client is None and request.kind is Message.INFORMATION and server in (None, identity(gateway))
    if request.kind is Message.INFORMATION:
        return server in (None, identity(gateway))
    return server is None if request.kind in _NAMES_NO_SERVER else server == identity(gateway)


def _told(said: Answer, request: Request) -> Iterator[tuple[int, bytes]]:
    if request.kind is Message.CONFIRM:
        held = [
            address for number, value in request.options if number == Option.ASSOCIATION for address in _held(value)
        ]
        if held:
            status = Status.SUCCESS if set(held) <= set(said.ipv6) else Status.NOT_ON_LINK
            yield Option.STATUS, _status(status)
    elif request.kind in (Message.RELEASE, Message.DECLINE):
        # The address stays the guest's, whatever it says of it.
        yield Option.STATUS, _status(Status.SUCCESS)
    if request.kind in _GIVES:
        yield from _associations(said, request)
    if request.kind in _GIVES or request.kind is Message.INFORMATION:
        if said.dns_ipv6:
            yield Option.DNS, b"".join(server.packed for server in said.dns_ipv6)
        if names := domains.fitting(said.search_domains, _DOMAINS):
            yield Option.SEARCH, names


def _associations(said: Answer, request: Request) -> Iterator[tuple[int, bytes]]:
    """Every address in the first association that is asked for, nothing in any other (RFC 8415 18.3.2)."""
    asked = [one for one in request.options if one[0] in (Option.ASSOCIATION, Option.TEMPORARY, Option.DELEGATION)]
    has_given = False
    for number, value in asked[:_MOST_ASSOCIATIONS]:
        if number == Option.ASSOCIATION and not has_given and len(value) >= 12:
            has_given = True
            ours = [_address(one, _FOR_EVER) for one in said.ipv6]
            others = [_address(one, bytes(4)) for one in _held(value) if one not in said.ipv6]
            # Of a solicitation it is a wish only; of what a client has, it must be told that it has it no more.
            stale = [] if request.kind is Message.SOLICIT else others[:_MOST_STALE]
            yield number, value[:4] + _FOR_EVER * 2 + b"".join((*ours, *stale))
        elif number == Option.TEMPORARY:
            yield number, value[:4].ljust(4, b"\0") + _option(Option.STATUS, _status(Status.NO_ADDRESS))
        else:
            status = Status.NO_PREFIX if number == Option.DELEGATION else Status.NO_ADDRESS
            yield number, value[:4].ljust(4, b"\0") + bytes(8) + _option(Option.STATUS, _status(status))


def _held(association: bytes) -> list[ipaddress.IPv6Address]:
    """The addresses that a client says it has, or would like."""
    options = _options(association[12:]) or ()
    return [
        ipaddress.IPv6Address(value[:16]) for number, value in options if number == Option.ADDRESS and len(value) >= 16
    ]


def _address(address: ipaddress.IPv6Address, lifetime: bytes) -> bytes:
    return _option(Option.ADDRESS, address.packed + lifetime * 2)


def _status(status: Status) -> bytes:
    return status.to_bytes(2, "big")


def _option(number: int, value: bytes) -> bytes:
    return number.to_bytes(2, "big") + len(value).to_bytes(2, "big") + value


def _options(data: bytes) -> tuple[tuple[int, bytes], ...] | None:
    """The first options, a bounded number of them; None where one is longer than there is."""
    found: list[tuple[int, bytes]] = []
    start = 0
    while start < len(data) and len(found) < _MOST_OPTIONS:
        if start + 4 > len(data):
            return None
        end = start + 4 + int.from_bytes(data[start + 2 : start + 4], "big")
        if end > len(data):
            return None
        found.append((int.from_bytes(data[start : start + 2], "big"), data[start + 4 : end]))
        start = end
    return tuple(found)
