"""The status of what an operator offers to tenants: images, networks, pools."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping

from corral import allocate, reasons
from corral.api import objects
from corral.api.v1alpha1 import conditions as api_conditions
from corral.api.v1alpha1 import host, image, ippool, network
from corral.conclude import conditions

Image = objects.Object[image.ImageSpec, image.ImageStatus]
Network = objects.Object[network.NetworkSpec, network.NetworkStatus]
Pool = objects.Object[ippool.IPPoolSpec, ippool.IPPoolStatus]


def conclude_image(
    one: Image, held: Mapping[str, Iterable[host.HeldImage]], now: datetime.datetime
) -> tuple[image.ImageStatus, float | None]:
    """`held` is what each host says of the images that were asked for there, by host name."""
    boot = one.spec.direct_boot
    sums = {one.spec.source.sha256} | ({boot.kernel.sha256, boot.initramfs.sha256} if boot is not None else set())
    said = {name: {entry.sha256: entry for entry in entries} for name, entries in held.items()}
    facts: list[conditions.Fact] = []
    for name, entries in sorted(said.items()):
        failed = (entry for sha256, entry in sorted(entries.items()) if sha256 in sums and not entry.held)
        facts += (_unfetched(name, entry) for entry in failed)
    fact = next(iter(facts), conditions.true("Fetchable", "Usable"))
    summary, look_again = conditions.summarized((fact,), one.status.conditions, ready="Usable", now=now)
    status = image.ImageStatus(
        observed_generation=one.generation,
        hosts=tuple(
            sorted(name for name, entries in said.items() if all(_is_held(entries, sha256) for sha256 in sums))
        ),
        conditions=_written(one, summary, now),
    )
    return status, look_again


def _unfetched(name: str, entry: host.HeldImage) -> conditions.Fact:
    reason = conditions.known(entry.reason)
    message = entry.message or reasons.reason(reason).sentence
    return conditions.false("Fetchable", reason, f"On host {name}: {message}")


def _is_held(entries: Mapping[str, host.HeldImage], sha256: str) -> bool:
    return sha256 in entries and entries[sha256].held


def conclude_network(
    one: Network, pools: Iterable[str], now: datetime.datetime
) -> tuple[network.NetworkStatus, float | None]:
    """`pools` are the names of the pools that there are."""
    known = set(pools)
    missing = [ref.name for ref in one.spec.pool_refs if ref.name not in known]
    fact = conditions.true("PoolsFound", "Usable")
    if missing:
        fact = conditions.false("PoolsFound", "PoolNotFound", f"There is no IPPool {missing[0]}: see spec.poolRefs")
    summary, look_again = conditions.summarized((fact,), one.status.conditions, ready="Usable", now=now)
    status = network.NetworkStatus(observed_generation=one.generation, conditions=_written(one, summary, now))
    return status, look_again


def conclude_pool(
    one: Pool, others: Mapping[str, Iterable[str]], now: datetime.datetime
) -> tuple[ippool.IPPoolStatus, float | None]:
    """`others` are the prefixes of the pools that were there before this one, by name."""
    fact = conditions.true("Exclusive", "Usable")
    for name, prefixes in sorted(others.items()):
        common = allocate.overlapping(one.spec.prefixes, prefixes)
        if common is not None:
            detail = f"spec.prefixes has {common[0]}, which overlaps {common[1]} of IPPool {name}: give other prefixes"
            fact = conditions.false("Exclusive", "PoolOverlaps", detail)
            break
    summary, look_again = conditions.summarized((fact,), one.status.conditions, ready="Usable", now=now)
    status = ippool.IPPoolStatus(
        observed_generation=one.generation,
        capacity=allocate.capacity(one.spec.prefixes),
        conditions=_written(one, summary, now),
    )
    return status, look_again


def _written(
    one: Image | Network | Pool, facts: tuple[conditions.Fact, ...], now: datetime.datetime
) -> tuple[api_conditions.Condition, ...]:
    return conditions.written(
        facts,
        one.status.conditions,
        generation=one.generation,
        now=now,
        names={"namespace": one.namespace, "name": one.name},
    )
