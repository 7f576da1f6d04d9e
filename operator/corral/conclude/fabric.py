"""How a host stands with its fabric, from what its BGP room found. Called by the agent."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from dataclasses import dataclass

from corral.api.v1alpha1 import bgp as api
from corral.api.v1alpha1.conditions import Condition
from corral.conclude import conditions
from corral.conclude.instance import Room
from corral_drivers.bgp import model as bgp

READY = "FabricReady"
_MOST_STRAYS = 8
_JITTER = 2  # seconds by which a daemon's own account of a session's begin may differ between two looks


@dataclass(frozen=True, slots=True)
class Found:
    """What became of the room, None before the first look; all sessions, None where they could not be asked for.

    `strays` are prefixes that are announced and should not be.
    """

    room: Room | None
    sessions: tuple[bgp.Session, ...] | None
    strays: tuple[str, ...] = ()


UNSEEN = Found(None, None)
"""Nothing yet, of a host that speaks BGP."""


def fact(found: Found, before: Iterable[Condition]) -> conditions.Fact:
    """Whether anybody in the fabric is told what is here; what was told `before` until somebody has looked."""
    if found.room is None:
        told = next((one for one in before if one.type == READY), None)
        return conditions.unknown(READY, "Provisioning") if told is None else conditions.repeated(told)
    if not found.room.holds:
        return conditions.false(READY, found.room.reason, found.room.detail)
    sessions = found.sessions or ()
    down = [one.neighbor for one in sessions if not one.is_established]
    if found.strays:
        some = ", ".join(found.strays[:_MOST_STRAYS])
        return conditions.true(READY, "AnnouncedTooMuch", f"Announced and not on the host: {len(found.strays)}, {some}")
    if not down and sessions:
        return conditions.true(READY, "FabricConnected")
    detail = f"{len(sessions) - len(down)} of {len(sessions)} BGP sessions are established, not with {', '.join(down)}"
    if len(down) == len(sessions):
        return conditions.false(READY, "FabricUnreachable", detail if down else "")
    return conditions.true(READY, "NeighborsMissing", detail)


def status(found: Found, before: api.BgpStatus | None) -> api.BgpStatus:
    """The sessions as they are told; what could not be asked for stays as it was told before."""
    if found.sessions is None:
        return before or api.BgpStatus()
    known = {one.neighbor: one for one in (before.sessions if before else ())}
    up = sum(one.is_established for one in found.sessions)
    return api.BgpStatus(
        established=f"{up}/{len(found.sessions)}",
        sessions=tuple(_session(one, known.get(one.neighbor)) for one in found.sessions[:8]),
    )


def differs(one: api.BgpStatus, other: api.BgpStatus) -> bool:
    """Whether more than numbers of prefixes differs: those change with every guest of the cloud."""
    return _without_numbers(one) != _without_numbers(other)


def _without_numbers(one: api.BgpStatus) -> list[tuple[str, str, str | None]]:
    return [(session.neighbor, session.state, session.since) for session in one.sessions]


def _session(one: bgp.Session, before: api.BgpSession | None) -> api.BgpSession:
    return api.BgpSession(
        neighbor=one.neighbor[:64],
        # Between tries a neighbor that is away is in three states in turn: to tell them would be a write a second.
        state=one.state if one.is_established else "Down",
        since=_since(one, before),
        prefixes_received=one.received,
        prefixes_sent=one.sent,
    )


def _since(one: bgp.Session, before: api.BgpSession | None) -> str | None:
    if not one.is_established:
        return None
    told = None if before is None else before.since
    if told is not None and abs(conditions.parsed(told).timestamp() - one.since) <= _JITTER:
        return told
    return conditions.timestamp(datetime.datetime.fromtimestamp(one.since, datetime.UTC))
