"""What a service may be asked for. Pure; every implementation of the port uses it."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from corral_drivers import errors
from corral_drivers.dhcp import domains
from corral_drivers.dhcp.model import Answer, Cause, Service

_SAFE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_INTERFACE = re.compile(r"[^\s/:%]{1,15}")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_MTU = range(68, 65536)
_MOST = 8
"""How many addresses, DNS servers, search domains or interfaces: an answer has to fit into one packet."""


def is_safe(owner: str) -> bool:
    """Whether this is one component of a path, and neither hidden nor a step upwards."""
    return _SAFE.fullmatch(owner) is not None


def check_owner(owner: str) -> None:
    """Raise `errors.Rejected` for an owner that `is_safe` does not take."""
    if not is_safe(owner):
        raise errors.Rejected(Cause.FAILED, f"{owner[:64]!r} can't be the owner of a guest that is answered")


def check(service: Service) -> None:
    """Raise `errors.Rejected` for what no packet could say."""
    check_owner(service.owner)
    interfaces = [answer.interface for answer in service.answers]
    if len(set(interfaces)) < len(interfaces) or len(interfaces) > _MOST:
        raise errors.Rejected(
            Cause.FAILED, f"answer {service.owner}: an interface comes twice, or there are over {_MOST}"
        )
    for answer in service.answers:
        for wrong in _wrong(answer):
            raise errors.Rejected(Cause.FAILED, f"answer {service.owner} over {answer.interface[:15]!r}: {wrong}")


def taken(owner: str, interface: str) -> errors.Rejected:
    """The refusal to answer two owners on one interface."""
    return errors.Rejected(
        Cause.INTERFACE_TAKEN, f"answer {owner} over {interface}: another owner's guest is answered there"
    )


def _wrong(answer: Answer) -> Iterator[str]:
    """What of it no packet could say."""
    if not _INTERFACE.fullmatch(answer.interface) or answer.interface in {".", ".."}:
        yield "that is no name of an interface"
    if not _MAC.fullmatch(answer.mac):
        yield f"{answer.mac[:32]!r} is no MAC such as 02:00:00:00:00:01"
    if answer.mtu not in _MTU:
        yield f"an MTU of {answer.mtu} is not from {_MTU[0]} to {_MTU[-1]}"
    if max(len(answer.addresses), len(answer.dns_servers), len(answer.search_domains)) > _MOST:
        yield f"there are over {_MOST} addresses, DNS servers or search domains"
    for address in (*answer.addresses, *answer.dns_servers):
        if not _is_canonical(address):
            yield f"{address[:64]!r} is no address as it is written"
    for name in (answer.hostname, *answer.search_domains):
        if not domains.is_encodable(name):
            yield f"{name[:64]!r} is no DNS name"


def _is_canonical(address: str) -> bool:
    try:
        return str(ipaddress.ip_address(address)) == address
    except ValueError:
        return False
