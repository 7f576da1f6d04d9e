"""One frame of a guest into the frame that answers it, or none. Pure; every implementation of the port uses it.

Nothing that a guest sends raises, and nothing is kept of it: the work of a frame is bounded by its length, of which
`LONGEST` octets are looked at.
"""

from __future__ import annotations

import ipaddress

from corral_drivers.dhcp import advertise, dhcp4, dhcp6, frames
from corral_drivers.dhcp.model import Answer, Gateway

LONGEST = 2048
"""Octets of a frame that are looked at: a question is far shorter."""

_EVERY_NODE = ipaddress.IPv6Address("ff02::1")
_EVERYBODY = b"\xff" * 6
_ROUTERS = ipaddress.IPv6Address("ff02::2").packed
_UNSPECIFIED = bytes(16)


def respond(said: Answer, gateway: Gateway, frame: bytes) -> bytes | None:
    """The answer to a frame that came in by the interface of `said`; None where it has no answer.

    Only the guest's own MAC is answered, and only what is said to it.
    """
    question = frames.parse(frame[:LONGEST])
    if question is None or question.mac != _mac(said):
        return None
    if len(question.source) == 4:
        return _dhcp4(said, gateway, question)
    if question.port == dhcp6.SERVER:
        return _dhcp6(said, gateway, question)
    return _router(said, gateway, question) if question.port == 0 else None


def advertisement(said: Answer, gateway: Gateway, destination: ipaddress.IPv6Address = _EVERY_NODE) -> bytes | None:
    """The frame of a router advertisement, for all on the link; None where the guest has no IPv6 address."""
    if not said.ipv6:
        return None
    # By the guest's own MAC also what goes to all: there is nobody else on its link.
    header = frames.Header(gateway.mac, _mac(said), gateway.ipv6, destination)
    return frames.icmpv6(header, advertise.ADVERTISEMENT, advertise.advertisement(said, gateway))


def _dhcp4(said: Answer, gateway: Gateway, question: frames.Question) -> bytes | None:
    if question.port != dhcp4.SERVER:
        return None
    reply = dhcp4.answer(said, gateway, question.body)
    if reply is None:
        return None
    to_mac = _EVERYBODY if reply.destination == ipaddress.IPv4Address("255.255.255.255") else _mac(said)
    header = frames.Header(gateway.mac, to_mac, gateway.ipv4, reply.destination)
    return frames.udp(header, (dhcp4.SERVER, dhcp4.CLIENT), reply.message)


def _dhcp6(said: Answer, gateway: Gateway, question: frames.Question) -> bytes | None:
    source = ipaddress.IPv6Address(question.source)
    if not source.is_link_local or question.destination != dhcp6.SERVERS.packed:
        return None
    message = dhcp6.answer(said, gateway, question.body)
    if message is None:
        return None
    header = frames.Header(gateway.mac, _mac(said), gateway.ipv6, source)
    return frames.udp(header, (dhcp6.SERVER, dhcp6.CLIENT), message)


def _router(said: Answer, gateway: Gateway, question: frames.Question) -> bytes | None:
    source = ipaddress.IPv6Address(question.source)
    is_asked = advertise.is_solicitation(question.body) and question.destination in (_ROUTERS, gateway.ipv6.packed)
    if not is_asked or not (source.is_link_local or question.source == _UNSPECIFIED):
        return None
    return advertisement(said, gateway, source if source.is_link_local else _EVERY_NODE)


def _mac(said: Answer) -> bytes:
    return bytes.fromhex(said.mac.replace(":", ""))
