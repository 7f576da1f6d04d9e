"""The controller's process: everything it is made of, put together and run until it is told to stop."""

from __future__ import annotations

import asyncio
import datetime
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import structlog

from corral import kube, store, watching
from corral import queue as queues
from corral.api import v1alpha1
from corral.controller import (
    cloud,
    dependents,
    guard,
    heartbeats,
    host,
    ledger,
    offers,
    sweep,
    virtualmachine,
)
from corral.controller.world import (
    ALLOCATIONS,
    CLOUD_KEY,
    CLOUDS,
    CLUSTER_IMAGES,
    CLUSTER_NETWORKS,
    HOSTS,
    IMAGES,
    INSTANCES,
    NETWORKS,
    OWNER,
    POOLS,
    VMS,
    World,
    owner_of,
)
from corral.resolve import instance as resolve_instance

log = structlog.get_logger(__name__)

_RECONCILERS: Mapping[str, Callable[[World, kube.Key], Awaitable[float | None]]] = {
    VMS.plural: virtualmachine.reconcile,
    HOSTS.plural: host.reconcile,
    CLUSTER_IMAGES.plural: offers.reconcile_image,
    IMAGES.plural: offers.reconcile_image,
    CLUSTER_NETWORKS.plural: offers.reconcile_network,
    NETWORKS.plural: offers.reconcile_network,
    POOLS.plural: offers.reconcile_pool,
    CLOUDS.plural: cloud.reconcile,
}
_EXPECTED = (kube.ApiUnavailable, kube.ApiConflict, kube.ApiRefused)


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the API is, and how often what is looked at; times are in seconds."""

    kubeconfig: str | None = None
    liveness: str | None = None
    sweep_every: float = 600.0
    heartbeats_every: float = 10.0
    workers: int = 16


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Run until `stop` is set; then leave everything as it is and close."""
    api = await kube.Kube.connect(settings.kubeconfig, user_agent="corral-controller")
    try:
        world = make_world(api)
        queue: queues.Queue[kube.Key] = queues.Queue(
            lambda key: _RECONCILERS[key.plural](world, key),
            queues.Settings(workers=settings.workers),
            expected=_EXPECTED,
        )
        world.tell = queue.add
        await _fill(world)
        log.info("the controller has read everything and begins", virtual_machines=world.store.count(VMS.plural))
        async with asyncio.TaskGroup() as tasks:
            background = [
                tasks.create_task(queue.run()),
                tasks.create_task(_every(settings.heartbeats_every, lambda: _look_for_life(world))),
                tasks.create_task(_every(settings.sweep_every, lambda: _sweep(world))),
            ]
            await watching.watch(
                api,
                v1alpha1.RESOURCES,
                lambda where, event, obj: _deliver(world, where, event, obj),
                watching.Settings(liveness=settings.liveness),
                stop,
            )
            for task in background:
                task.cancel()
    finally:
        await api.close()


def make_world(api: kube.Kube) -> World:
    """An empty world around this connection."""
    objects = store.Store()
    for plural in (INSTANCES.plural, ALLOCATIONS.plural):
        objects.index(plural, OWNER, owner_of)
    return World(
        api=api,
        store=objects,
        ledger=ledger.Ledger(
            objects,
            machines=VMS.plural,
            instances=INSTANCES.plural,
            allocations=ALLOCATIONS.plural,
            host_prefix=resolve_instance.namespace(""),
        ),
        guard=guard.Guard(),
        heartbeats=heartbeats.Heartbeats(),
        clock=lambda: datetime.datetime.now(datetime.UTC),
    )


async def _fill(world: World) -> None:
    """Know everything before anything is decided, and then look at everything once."""
    await sweep.fill(world, _collections())
    await cloud.ensure(world)
    await _look_for_life(world)
    keys: dict[kube.Key, None] = {CLOUD_KEY: None}
    for where in _collections():
        for key, obj in world.store.all(where.plural):
            keys |= dict.fromkeys(dependents.dependents(world, key, obj))
    for key in sorted(keys, key=lambda key: _unclaimed_last(world, key)):
        world.tell(key, 0.0)


def _unclaimed_last(world: World, key: kube.Key) -> int:
    """What holds a placement comes first, so that nobody else is given its room or addresses."""
    if key.plural != VMS.plural:
        return 0
    vm = world.store.get(key)
    return 1 if vm is not None and "placement" in vm.get("status", {}) else 2


def _deliver(world: World, where: kube.Collection, event: str | None, obj: kube.Object) -> None:
    key = kube.key_of(where, obj)
    if event == "DELETED":
        world.store.doubt(key)
    elif not world.store.put(where, obj):
        return
    for dependent in dependents.dependents(world, key, obj):
        world.tell(dependent, 0.0)


async def _look_for_life(world: World) -> None:
    leases = [obj async for page in world.api.pages(kube.LEASES, label_selector=heartbeats.LABEL) for obj in page]
    changed = world.heartbeats.take(leases, now=time.monotonic(), wall=world.clock())
    for name in sorted(changed):
        world.tell(kube.Key(HOSTS.plural, "", name), 0.0)
        for key in dependents.guests_of(world, name):
            world.tell(key, 0.0)
    if changed:
        world.tell(CLOUD_KEY, 0.0)
        for key in dependents.unplaced(world):
            world.tell(key, 0.0)


async def _sweep(world: World) -> None:
    await sweep.sweep(world, _collections())


async def _every(seconds: float, act: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(seconds)
        try:
            await act()
        except kube.ApiError as error:
            log.warning("the API server did not answer a periodic look; the next one follows", why=str(error))


def _collections() -> list[kube.Collection]:
    return [kube.collection(resource) for resource in v1alpha1.RESOURCES]
