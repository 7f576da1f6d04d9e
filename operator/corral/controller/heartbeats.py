"""Which agents answer: every agent renews a Lease, and one list of all Leases tells which ones moved.

A watch would deliver every heartbeat of every host; what matters is only who stopped. Times are taken when a change is
seen, so that the clocks of hosts need not agree with ours.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterable, Set
from dataclasses import dataclass

from corral import deadlines, kube
from corral.conclude import conditions

_Lease = tuple[str, str, str]
"""The host that it is of, its namespace, its name."""

NAME = "corral-agent"
"""Name of an agent's Lease: one a host, in the host's namespace."""

LABEL = "corral.dev/agent"
"""Label of an agent's Lease; its value is the host's name."""


@dataclass(slots=True)
class _Beat:
    version: str
    seen: float


class Heartbeats:
    """Signs of life by host; `now` is in seconds of any steady clock."""

    def __init__(self, silent_after: float = deadlines.AGENT_SILENT_AFTER) -> None:
        self._silent_after = silent_after
        self._beats: dict[_Lease, _Beat] = {}
        self._answering: set[str] = set()

    def take(self, leases: Iterable[kube.Object], *, now: float, wall: datetime.datetime) -> set[str]:
        """Take in all Leases of agents as they are now; the hosts whose agent began or ceased to answer."""
        for lease in leases:
            metadata = lease["metadata"]
            # Of two Leases of one host each has its own pulse: compared with each other, they would seem to move.
            which = (metadata["labels"][LABEL], metadata["namespace"], metadata["name"])
            version, beat = metadata["resourceVersion"], self._beats.get(which)
            if beat is None:
                # Of a Lease never seen before, only its own clock tells how old it is.
                self._beats[which] = _Beat(version, now - _age(lease, wall))
            elif beat.version != version:
                self._beats[which] = _Beat(version, now)
        answering = {which[0] for which, beat in self._beats.items() if now - beat.seen < self._silent_after}
        changed, self._answering = answering ^ self._answering, answering
        return changed

    @property
    def answering(self) -> Set[str]:
        """The hosts whose agent answers; another set after each look."""
        return self._answering

    def fact(self, host: str) -> conditions.Fact:
        """AgentConnected of this host."""
        if host in self._answering:
            return conditions.true("AgentConnected", "Answering")
        if any(which[0] == host for which in self._beats):
            return conditions.unknown("AgentConnected", "AgentSilent")
        return conditions.unknown("AgentConnected", "AgentNotSeen")


def _age(lease: kube.Object, wall: datetime.datetime) -> float:
    renewed = lease.get("spec", {}).get("renewTime")
    if not renewed:
        return math.inf
    try:
        return max((wall - conditions.parsed(renewed)).total_seconds(), 0.0)
    except ValueError:
        # The API server takes times that no calendar of ours has, such as those of the year 0.
        return math.inf
