"""What a route or neighbour may be asked for: only the form in which the kernel will show it, or a plan never ends."""

from __future__ import annotations

import ipaddress
import re

from corral_drivers import errors
from corral_drivers.routing import messages
from corral_drivers.routing.model import Blackhole, Cause, Neighbour, Route

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


def network(route: Route | Blackhole) -> messages.Network:
    """The route's prefix; Rejected where it is none, or not written as the kernel shows it."""
    try:
        parsed = ipaddress.ip_network(route.prefix)
    except ValueError as error:
        raise errors.Rejected(Cause.FAILED, f"route {route.prefix}: not a prefix: {error}") from error
    if str(parsed) != route.prefix:
        raise errors.Rejected(Cause.FAILED, f"route {route.prefix}: its canonical form is {parsed}")
    return parsed


def address(neighbour: Neighbour) -> messages.Address:
    """The neighbour's address; Rejected where it or the MAC is none, or not written as the kernel shows it."""
    operation = f"neighbour {neighbour.address} on {neighbour.interface}"
    try:
        parsed = ipaddress.ip_address(neighbour.address)
    except ValueError as error:
        raise errors.Rejected(Cause.FAILED, f"{operation}: not an address: {error}") from error
    if str(parsed) != neighbour.address:
        raise errors.Rejected(Cause.FAILED, f"{operation}: its canonical form is {parsed}")
    if not _MAC.fullmatch(neighbour.mac):
        raise errors.Rejected(Cause.FAILED, f"{operation}: {neighbour.mac} is not a MAC in lower case with colons")
    return parsed
