"""What bgpd says of its neighbors, read. Pure. The shapes are those of FRR's `show … json`."""

from __future__ import annotations

import json
from typing import Any

from corral_drivers import errors
from corral_drivers.bgp.model import Cause, Session

SESSIONS = "show bgp summary json"
_FAMILIES = {"ipv4Unicast": "ipv4", "ipv6Unicast": "ipv6"}


def sessions(text: str) -> tuple[Session, ...]:
    """An answer to `SESSIONS`; nothing where bgpd has no configuration. Raises `errors.Unavailable`."""
    found: dict[str, Session] = {}
    for family in _FAMILIES:
        for name, peer in _object(text).get(family, {}).get("peers", {}).items():
            before = found.get(name, Session(name, ""))
            found[name] = Session(
                neighbor=name,
                state=str(peer.get("state", "Idle")),
                since=int(peer.get("peerUptimeEstablishedEpoch", 0)),
                received=before.received + int(peer.get("pfxRcd", 0)),
                sent=before.sent + int(peer.get("pfxSnt", 0)),
            )
    return tuple(sorted(found.values()))


def told(neighbor: str) -> tuple[str, ...]:
    """The commands whose answers `announced` reads: what one neighbor is told of each family."""
    return tuple(f"show bgp {one} unicast neighbors {neighbor} advertised-routes json" for one in _FAMILIES.values())


def announced(text: str) -> frozenset[str]:
    """The prefixes in an answer to one of `told`. Raises `errors.Unavailable`."""
    routes = _object(text).get("advertisedRoutes", {})
    return frozenset(routes) if isinstance(routes, dict) else frozenset()


def _object(text: str) -> dict[str, Any]:
    # Without `router bgp` it says so, in a sentence or in nothing.
    if not text.strip() or text.lstrip().startswith("%"):
        return {}
    try:
        found = json.loads(text)
    except ValueError as error:
        raise errors.Unavailable(Cause.NOT_ANSWERING, f"bgpd's answer can't be read: {text[:80]!r}") from error
    return found if isinstance(found, dict) else {}
