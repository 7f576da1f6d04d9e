"""A HostState's status from what the agent finds on its machine. Called by the agent."""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from corral.api import quantities
from corral.api.v1alpha1 import host, virtualmachine
from corral.conclude import causes, conditions, fabric
from corral_drivers import errors
from corral_drivers.hypervisor import model as hypervisor
from corral_drivers.image import model as image

_MOST_ADDRESSES = 16
LONGEST_LIST = 512
"""How many images, and how many orphans, a status has room for."""


@dataclass(frozen=True, slots=True)
class Orphaned:
    """What there is of an owner without Instance: kinds (domain, disk, seed, tap, rules, dhcp), and what it was for.

    `addresses` are those of each interface.
    """

    kinds: frozenset[str]
    name: str = ""
    epoch: int = 0
    addresses: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """What was found; `None` is for what could not be looked at, and `fault` says why.

    `orphans` are by the uid of their owner.
    """

    facts: hypervisor.Facts | None
    held: tuple[image.Held, ...] | None
    unfinished: tuple[tuple[image.Image, errors.DriverError | None], ...]
    orphans: Mapping[str, Orphaned] | None
    fault: errors.DriverError | None
    fabric: fabric.Found | None = None
    """None where the host speaks no BGP."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Of which HostState, by which agent, under which name."""

    generation: int
    host: str
    agent_version: str


def conclude(found: Found, asked: Asked, before: host.HostStateStatus, now: datetime.datetime) -> host.HostStateStatus:
    """The whole status; what could not be looked at stays as it was said before."""
    fact = conditions.true("HypervisorReady", "HypervisorAnswers")
    if found.fault is not None:
        fact = conditions.false("HypervisorReady", causes.reason(found.fault), found.fault.message)
    facts = found.facts
    return host.HostStateStatus(
        observed_generation=asked.generation,
        capacity=before.capacity if facts is None else _capacity(facts),
        facts=_facts(facts, before.facts, asked.agent_version),
        images=before.images if found.held is None else tuple(_images(found.held, found.unfinished)),
        orphans=before.orphans if found.orphans is None else tuple(_orphans(found.orphans)),
        orphan_count=before.orphan_count if found.orphans is None else len(found.orphans),
        bgp=None if found.fabric is None else fabric.status(found.fabric, before.bgp),
        conditions=conditions.written(
            (fact,) if found.fabric is None else (fact, fabric.fact(found.fabric, before.conditions)),
            before.conditions,
            generation=asked.generation,
            now=now,
            names={"name": asked.host, "host": asked.host},
        ),
    )


def marked(
    marks: host.Marks, asked: Asked, before: host.HostStateStatus, now: datetime.datetime
) -> host.HostStateStatus:
    """The status while the machine carries other marks than it should: nothing is looked at, and nothing touched."""
    fact = conditions.false("HypervisorReady", "MarksDiffer")
    told = conditions.written(
        (fact,), before.conditions, generation=asked.generation, now=now, names={"name": asked.host, "host": asked.host}
    )
    return before.model_copy(update={"observed_generation": asked.generation, "marks": marks, "conditions": told})


def _capacity(facts: hypervisor.Facts) -> host.Resources:
    return host.Resources(cpu=facts.cpus, memory=quantities.from_bytes(facts.memory))


def _facts(facts: hypervisor.Facts | None, before: host.Facts, agent_version: str) -> host.Facts:
    if facts is None:
        return before.model_copy(update={"agent_version": agent_version})
    return host.Facts(
        hypervisor=f"{facts.hypervisor} {facts.version}"[:63],
        accelerator=facts.accelerator,
        agent_version=agent_version,
    )


def _images(
    held: Iterable[image.Held], unfinished: Iterable[tuple[image.Image, errors.DriverError | None]]
) -> list[host.HeldImage]:
    told = {one.sha256: host.HeldImage(sha256=one.sha256, held=True) for one in held}
    for one, error in unfinished:
        if one.sha256 not in told:
            told[one.sha256] = host.HeldImage(
                sha256=one.sha256,
                held=False,
                reason="ImageFetching" if error is None else causes.reason(error),
                message="" if error is None else error.message[: conditions.LONGEST_MESSAGE],
            )
    # Where there are more than fit, what is missing is told first.
    return sorted(sorted(told.values(), key=lambda one: one.held)[:LONGEST_LIST], key=lambda one: one.sha256)


def _orphans(orphans: Mapping[str, Orphaned]) -> Iterator[host.Orphan]:
    for uid, one in itertools.islice(sorted(orphans.items(), key=lambda item: item[0]), LONGEST_LIST):
        # A mark that was edited by hand may say anything.
        yield host.Orphan(
            uid=uid[:64],
            name=one.name[:253],
            kinds=tuple(sorted(one.kinds)),
            epoch=max(one.epoch, 0),
            addresses=tuple(
                virtualmachine.PlacedAddress(interface=interface, address=address)
                for interface, address in one.addresses[:_MOST_ADDRESSES]
            ),
        )
