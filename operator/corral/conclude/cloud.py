"""The Cloud's status: what is held back, and the health of everything in a line."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field

from corral.api import objects
from corral.api.v1alpha1 import cloud
from corral.conclude import conditions

Cloud = objects.Object[cloud.CloudSpec, cloud.CloudStatus]


@dataclass(frozen=True, slots=True)
class Observed:
    """How many removals are held and since when; how many hosts there are, and the names of those not Ready.

    `orphans` are counts by the names of the hosts that have any.
    """

    held: int
    held_since: datetime.datetime | None
    hosts: int
    hosts_not_ready: tuple[str, ...]
    orphans: Mapping[str, int] = field(default_factory=dict)


def conclude(one: Cloud, observed: Observed, now: datetime.datetime) -> tuple[cloud.CloudStatus, float | None]:
    """The status, and in how many seconds time alone would change it (None: never)."""
    fact = conditions.true("Removing", "Healthy")
    if observed.held:
        detail = f"{observed.held} removals look like an accident and are held until a person says so"
        fact = conditions.false("Removing", "RemovalsHeld", detail)
    summary, look_again = conditions.summarized((fact,), one.status.conditions, ready="Healthy", now=now)
    status = cloud.CloudStatus(
        observed_generation=one.generation,
        printable_status=_line(observed),
        held_since=None if observed.held_since is None else conditions.timestamp(observed.held_since),
        held_removals=observed.held,
        orphans=sum(observed.orphans.values()),
        conditions=conditions.written(
            summary, one.status.conditions, generation=one.generation, now=now, names={"name": one.name}
        ),
    )
    return status, look_again


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _line(observed: Observed) -> str:
    parts = []
    if observed.held:
        parts.append(f"{observed.held} removals held")
    if observed.hosts_not_ready:
        parts.append(f"{len(observed.hosts_not_ready)}/{observed.hosts} hosts not ready: {observed.hosts_not_ready[0]}")
    elif not observed.hosts:
        parts.append("no hosts yet")
    if observed.orphans:
        on = min(observed.orphans) if len(observed.orphans) == 1 else f"{len(observed.orphans)} hosts"
        parts.append(f"{_counted(sum(observed.orphans.values()), 'orphan')} on {on}")
    return ", ".join(parts)[:128] or "healthy"
