"""Cloud: the limits of the guard, what it holds, and the health of everything in a line."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator

import structlog

from corral import kube
from corral.api import objects
from corral.api.v1alpha1 import cloud
from corral.conclude import cloud as conclude
from corral.conclude import conditions
from corral.controller import dependents, guard
from corral.controller.world import CLOUD_KEY, CLOUDS, HOSTS, INSTANCES, VMS, World

log = structlog.get_logger(__name__)


async def begin(world: World) -> None:
    """Make the Cloud with its defaults where there is none: its uid marks everything that hosts hold.

    Its limits are taken up before anything is removed, and what was held stays held across a restart.
    """
    raw = await world.current(CLOUDS, CLOUD_KEY)
    if raw is None:
        raw = await world.api.create(CLOUDS, {"metadata": {"name": cloud.NAME}, "spec": {}})
        world.store.put(CLOUDS, raw)
    one = objects.parsed(raw, cloud.CloudSpec, cloud.CloudStatus)
    _take_up(world, one)
    if one.status.held_since:
        # Also where a person has released them meanwhile: then the first look at the Cloud lets all of them go.
        for obj in _bereft(world):
            world.guard.hold(obj["spec"]["owner"]["uid"], time.monotonic())


async def reconcile(world: World, key: kube.Key) -> float | None:
    """Take up the limits, let go what a person released, and tell how things are."""
    raw = await world.current(CLOUDS, key)
    if raw is None:
        return None
    one = objects.parsed(raw, cloud.CloudSpec, cloud.CloudStatus)
    _take_up(world, one)
    if one.status.held_since and one.spec.deletion_guard.release == one.status.held_since:
        _release(world)
    status, look_again = conclude.conclude(one, _observed(world, one), world.clock())
    await world.write_status(CLOUDS, raw, status)
    return look_again


def _bereft(world: World) -> Iterator[kube.Object]:
    """Instances that stand, of VirtualMachines that are not known: what a guard before this one held is among them."""
    living = {vm["metadata"]["uid"] for _, vm in world.store.all(VMS.plural)}
    for _, obj in world.store.all(INSTANCES.plural):
        if "deletionTimestamp" not in obj["metadata"] and obj["spec"]["owner"]["uid"] not in living:
            yield obj


def _take_up(world: World, one: conclude.Cloud) -> None:
    limits = one.spec.deletion_guard
    world.guard.limits = guard.Limits(limits.share_percent / 100, limits.floor, float(limits.window_seconds))


def _release(world: World) -> None:
    released = set(world.guard.release())
    for _, obj in world.store.all(INSTANCES.plural):
        if obj["spec"]["owner"]["uid"] in released:
            log.warning("a person released a held removal", instance=obj["metadata"]["name"])
            world.tell(dependents.settler(kube.key_of(INSTANCES, obj), obj), 0.0)


def _observed(world: World, one: conclude.Cloud) -> conclude.Observed:
    hosts = dict(world.store.all(HOSTS.plural))
    return conclude.Observed(
        held=world.guard.held,
        held_since=_since(world, one),
        hosts=len(hosts),
        hosts_not_ready=tuple(sorted(key.name for key in hosts if not world.heartbeats.fact(key.name).holds)),
        orphans=world.orphans.counts,
    )


def _since(world: World, one: conclude.Cloud) -> datetime.datetime | None:
    since = world.guard.held_since
    if since is None:
        return None
    # A person is typing this value: while anything is held, it does not move.
    if one.status.held_since and one.status.held_since != one.spec.deletion_guard.release:
        return conditions.parsed(one.status.held_since)
    return world.clock() - datetime.timedelta(seconds=time.monotonic() - since)
