"""A Host's status: from its spec, what its agent says, and when the agent was last heard of."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from corral.api import objects, quantities
from corral.api.v1alpha1 import host
from corral.conclude import conditions, fabric

_MOST_MEMORY = 2**63 - 1
"""Bytes: what a host says of itself may be nonsense."""

_NOTHING = host.Allocated()

Host = objects.Object[host.HostSpec, host.HostStatus]


@dataclass(frozen=True, slots=True)
class Observed:
    """What is known of a host: whether its agent answers, and what it said last, None if it never did.

    `allocated` is what guests take of it.
    """

    agent: conditions.Fact
    state: host.HostStateStatus | None
    allocated: host.Allocated = _NOTHING
    rival: str = ""
    """Why the host may not speak BGP as it should, because another one does."""


def conclude(one: Host, observed: Observed, now: datetime.datetime) -> tuple[host.HostStatus, float | None]:
    """The status, and in how many seconds time alone would change it (None: never)."""
    facts: tuple[conditions.Fact, ...] = (observed.agent, _said(observed, "HypervisorReady", "AgentNotSeen"))
    if one.spec.bgp is not None:
        # An agent that has spoken, and not of this yet, has not taken it up.
        unsaid = "AgentNotSeen" if observed.state is None else "Provisioning"
        said = _said(observed, fabric.READY, unsaid)
        facts = (*facts, conditions.false(fabric.READY, "BgpTaken", observed.rival) if observed.rival else said)
    summary, look_again = conditions.summarized(facts, one.status.conditions, ready="Usable", now=now)
    capacity = one.status.capacity if observed.state is None else observed.state.capacity
    status = host.HostStatus(
        observed_generation=one.generation,
        capacity=capacity,
        allocatable=allocatable(one.spec, capacity),
        allocated=observed.allocated,
        facts=one.status.facts if observed.state is None else observed.state.facts,
        orphans=one.status.orphans if observed.state is None else observed.state.orphan_count,
        bgp=None if one.spec.bgp is None else one.status.bgp if observed.state is None else observed.state.bgp,
        conditions=conditions.written(
            summary,
            one.status.conditions,
            generation=one.generation,
            now=now,
            names={"name": one.name, "host": one.name},
        ),
    )
    return status, look_again


def allocatable(spec: host.HostSpec, capacity: host.Resources) -> host.Resources:
    """What guests can have of a host's capacity."""
    memory = quantities.to_bytes(capacity.memory) - quantities.to_bytes(spec.reserved.memory)
    return host.Resources(cpu=capacity.cpu, memory=quantities.from_bytes(min(max(memory, 0), _MOST_MEMORY)))


def _said(observed: Observed, kind: str, unsaid: str) -> conditions.Fact:
    if observed.state is not None:
        for condition in observed.state.conditions:
            if condition.type == kind:
                return conditions.repeated(condition)
    return conditions.unknown(kind, unsaid)
