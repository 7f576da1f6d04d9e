"""Cloud: the limits of the guard, what it holds, and the health of everything in a line."""

from __future__ import annotations

import datetime
import time

import structlog

from corral import kube
from corral.api import objects
from corral.api.v1alpha1 import cloud
from corral.conclude import cloud as conclude
from corral.conclude import conditions
from corral.controller import guard
from corral.controller.world import CLOUD_KEY, CLOUDS, HOSTS, World

log = structlog.get_logger(__name__)


async def ensure(world: World) -> None:
    """Make the Cloud with its defaults where there is none: its uid marks everything that hosts hold."""
    if await world.current(CLOUDS, CLOUD_KEY) is None:
        try:
            made = await world.api.create(CLOUDS, {"metadata": {"name": cloud.NAME}, "spec": {}})
        except kube.ApiConflict:
            return
        world.store.put(CLOUDS, made)


async def reconcile(world: World, key: kube.Key) -> float | None:
    """Take up the limits, let go what a person released, and tell how things are."""
    raw = await world.current(CLOUDS, key)
    if raw is None:
        return None
    one = objects.parsed(raw, cloud.CloudSpec, cloud.CloudStatus)
    limits = one.spec.deletion_guard
    world.guard.limits = guard.Limits(limits.share_percent / 100, limits.floor, float(limits.window_seconds))
    if one.status.held_since and limits.release == one.status.held_since:
        for uid in world.guard.release():
            log.warning("a person released a held removal", uid=uid)
    status, look_again = conclude.conclude(one, _observed(world, one), world.clock())
    await world.write_status(CLOUDS, raw, status)
    return look_again


def _observed(world: World, one: conclude.Cloud) -> conclude.Observed:
    hosts = dict(world.store.all(HOSTS.plural))
    return conclude.Observed(
        held=world.guard.held,
        held_since=_since(world, one),
        hosts=len(hosts),
        hosts_not_ready=tuple(sorted(key.name for key in hosts if not world.heartbeats.fact(key.name).holds)),
    )


def _since(world: World, one: conclude.Cloud) -> datetime.datetime | None:
    since = world.guard.held_since
    if since is None:
        return None
    # A person is typing this value: while anything is held, it does not move.
    if one.status.held_since and one.status.held_since != one.spec.deletion_guard.release:
        return conditions.parsed(one.status.held_since)
    return world.clock() - datetime.timedelta(seconds=time.monotonic() - since)
