"""The controller's process: everything it is made of, put together and run until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog

from corral import deadlines, history, kube, metrics, periodic, scrape, store, watching
from corral import queue as queues
from corral.allocate import space as spaces
from corral.api import objects, v1alpha1
from corral.controller import (
    agents,
    blocks,
    candidates,
    census,
    claim,
    cloud,
    cooling,
    dependents,
    fleet,
    guard,
    heartbeats,
    host,
    leader,
    ledger,
    offers,
    orphans,
    pools,
    rollcall,
    sweep,
    virtualmachine,
)
from corral.controller.world import (
    ALLOCATIONS,
    BLOCKS,
    CLASSES,
    CLOUD_KEY,
    CLOUDS,
    CLUSTER_IMAGES,
    CLUSTER_NETWORKS,
    HOST,
    HOST_STATES,
    HOSTS,
    IMAGES,
    INSTANCES,
    NETWORKS,
    OWNER,
    POOLS,
    VMS,
    WAITING,
    WAITING_IN,
    World,
    block_host,
    host_of,
    owner_of,
    waits,
    waits_in,
)
from corral.resolve import instance as resolve_instance

log = structlog.get_logger(__name__)

COLLECTIONS = tuple(kube.collection(resource) for resource in v1alpha1.RESOURCES)
"""Every kind, in the order of their names: VirtualMachines are listed after what stands for them."""

_COLLECTION_OF = {where.plural: where for where in COLLECTIONS}
_EXPECTED = (kube.ApiUnavailable, kube.ApiConflict, kube.ApiRefused)
_ASKED_EVERY = 2.0
_NOT_KNOWN, _NOT_FOUND = 401, 404
_STIRRED_EVERY = 0.5
"""Seconds between two looks for those who wait for others to come or go, or for room."""

_ONE_BY_ONE = 0.05
"""Seconds in which what vanishes together is told of once."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the API is, and how often what is looked at; times are in seconds. `metrics` is where they are served."""

    kubeconfig: str | None = None
    liveness: str | None = None
    metrics: str | None = None
    sweep_every: float = 600.0
    heartbeats_every: float = 10.0
    allocated_every: float = 5.0
    silent_after: float = deadlines.AGENT_SILENT_AFTER
    roll_call_within: float = deadlines.ROLL_CALL
    block_idle_for: float = deadlines.BLOCK_IDLE
    workers: int = 16
    lease: leader.Times = field(default_factory=leader.Times)
    watches: watching.Settings = field(default_factory=watching.Settings)


Connect = Callable[[str | None], Awaitable[kube.Kube]]


async def connect(kubeconfig: str | None) -> kube.Kube:
    """The controller's connection to the API server."""
    return await kube.Kube.connect(kubeconfig, user_agent="corral-controller")


async def run(settings: Settings, stop: asyncio.Event, *, connect: Connect = connect) -> None:
    """Run until `stop` is set; then leave everything as it is and close."""
    counted = metrics.Metrics()
    api = await connect(settings.kubeconfig)
    api.count(counted)
    try:
        async with scrape.serving(settings.metrics, counted.registry):
            await _take_turns(api, settings, stop, counted)
    finally:
        await api.close()


async def _take_turns(api: kube.Kube, settings: Settings, stop: asyncio.Event, counted: metrics.Metrics) -> None:
    """Stand by and lead in turns, each time with a world of its own, until `stop` is set."""
    lease = await connect(settings.kubeconfig)
    try:
        leadership = leader.Leadership(lease, leader.identity(), settings.lease)
        api.fence(leadership.may_write)
        while not stop.is_set():
            standby = _stand_by(api, settings, stop)
            if await _first_of(leadership.acquire(), standby, stop.wait()):
                try:
                    await _first_of(_lead(api, settings, stop, counted), leadership.keep())
                finally:
                    counted.fleet = None
                    await leadership.release()
    finally:
        await lease.close()


async def _first_of(*works: Coroutine[Any, Any, Any]) -> bool:
    """Work on all until one ends, and end the others; whether it was the first one. Raises what ended it."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        first = tasks[0].done()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.result()
    return first


async def _stand_by(api: kube.Kube, settings: Settings, stop: asyncio.Event) -> None:
    """Answer the probe, and watch nothing."""
    if settings.liveness is not None:
        await watching.watch(api, (), lambda *_: None, watching.Settings(liveness=settings.liveness), stop)
    await stop.wait()


async def _lead(api: kube.Kube, settings: Settings, stop: asyncio.Event, counted: metrics.Metrics) -> None:
    world = make_world(
        api,
        silent_after=settings.silent_after,
        roll_call_within=settings.roll_call_within,
        block_idle_for=settings.block_idle_for,
    )
    queue: queues.Queue[kube.Key] = queues.Queue(
        lambda key: _reconcile(world, key),
        queues.Settings(workers=settings.workers),
        expected=_EXPECTED,
        ended=lambda key, outcome, seconds: counted.reconciled(key.plural, outcome, seconds),
    )
    world.tell = queue.add
    counted.follow(lambda: queue.depth, lambda: queue.oldest)
    counted.fleet = lambda: fleet.look(world)
    if await _begin(world, stop):
        await _serve(world, queue, settings, stop)


async def _reconcile(world: World, key: kube.Key) -> float | None:
    try:
        return await reconcile(world, key)
    except kube.ApiFenced:
        # Where another leads by now, this queue is gone by then.
        return _ASKED_EVERY


async def reconcile(world: World, key: kube.Key) -> float | None:
    """Whatever has to be done about this key; what we can't read is told on the object, and left as it is."""
    try:
        return await RECONCILERS[key.plural](world, key)
    except objects.NotUnderstood as error:
        seen = world.store.get(key)
        if seen is not None:
            await world.write_not_understood(_COLLECTION_OF[key.plural], seen, str(error))
        return None
    except kube.ApiRefused as error:
        with contextlib.suppress(kube.ApiError):
            await _tell_refusal(world, key, error)
        raise


async def _tell_refusal(world: World, key: kube.Key, error: kube.ApiRefused) -> None:
    """On the object itself, where people look; unless what was to be written is only gone, or we are not known."""
    seen = world.store.get(key)
    is_gone = error.status == _NOT_FOUND and not error.request.startswith("POST")
    told = error.status != _NOT_KNOWN and not is_gone
    if seen is not None and told and not world.store.is_doubtful(key):
        await world.write_refused(_COLLECTION_OF[key.plural], seen, error.message)


async def _serve(world: World, queue: queues.Queue[kube.Key], settings: Settings, stop: asyncio.Event) -> None:
    listed: asyncio.Queue[kube.Collection] = asyncio.Queue()
    ended = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        background = [
            tasks.create_task(world.history.ends(stop, ended)),
            tasks.create_task(world.history.keep()),
            tasks.create_task(periodic.after_lists(listed, lambda where: _sweep_one(world, where))),
            tasks.create_task(queue.run()),
            tasks.create_task(periodic.every(settings.heartbeats_every, lambda: agents.look(world))),
            tasks.create_task(periodic.every(_STIRRED_EVERY, lambda: _wake(world))),
            tasks.create_task(periodic.every(settings.allocated_every, lambda: _count_anew(world))),
            tasks.create_task(periodic.every(settings.sweep_every, lambda: _sweep(world))),
        ]
        await watching.watch(
            world.api,
            v1alpha1.RESOURCES,
            lambda where, event, obj: deliver(world, where, event, obj),
            dataclasses.replace(settings.watches, liveness=settings.liveness),
            ended,
            listed=listed.put_nowait,
            resumed=world.history.resumed,
        )
        for task in background:
            task.cancel()


async def _begin(world: World, stop: asyncio.Event) -> bool:
    """Know everything; False where the controller is stopped before the API server has answered."""
    while not stop.is_set():
        try:
            await fill(world)
        except kube.ApiError as error:
            log.warning("the controller waits for the API server and asks again", why=str(error))
        else:
            log.info("the controller has read everything", virtual_machines=world.store.count(VMS.plural))
            return True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), _ASKED_EVERY)
    return False


def make_world(
    api: kube.Kube,
    *,
    silent_after: float = deadlines.AGENT_SILENT_AFTER,
    roll_call_within: float = deadlines.ROLL_CALL,
    block_idle_for: float = deadlines.BLOCK_IDLE,
    now: Callable[[], float] = time.monotonic,
) -> World:
    """An empty world around this connection; `now` is in seconds of a steady clock."""
    known, space = store.Store(), spaces.Space()
    for plural in (INSTANCES.plural, ALLOCATIONS.plural):
        known.index(plural, OWNER, owner_of)
    known.index(VMS.plural, HOST, host_of)
    known.index(VMS.plural, WAITING, waits)
    known.index(VMS.plural, WAITING_IN, waits_in)
    known.index(BLOCKS.plural, HOST, block_host)
    host_prefix = resolve_instance.namespace("")
    book = ledger.Ledger(
        known,
        space,
        machines=VMS.plural,
        instances=INSTANCES.plural,
        allocations=ALLOCATIONS.plural,
        host_prefix=host_prefix,
    )
    beats = heartbeats.Heartbeats(silent_after)
    world = World(
        api=api,
        store=known,
        history=history.History(api, known),
        space=space,
        pools=pools.Pools(known, space, pools=POOLS.plural, blocks=BLOCKS.plural, now=now, idle_for=block_idle_for),
        cooling=cooling.Cooling(now),
        ledger=book,
        orphans=orphans.Orphans(known, states=HOST_STATES.plural, host_prefix=host_prefix),
        roll_call=rollcall.RollCall(now, roll_call_within),
        guard=guard.Guard(),
        heartbeats=beats,
        candidates=candidates.Candidates(
            known, book, beats, hosts=HOSTS.plural, states=HOST_STATES.plural, host_prefix=host_prefix
        ),
        census=census.Census(known, book, machines=VMS.plural),
        clock=lambda: datetime.datetime.now(datetime.UTC),
    )
    known.listen(lambda key, old, new: _lost(world, key, old) if new is None and old is not None else None)
    return world


async def fill(world: World) -> None:
    """Know everything before anything is decided, and then look at everything once."""
    await sweep.fill(world, COLLECTIONS)
    await cloud.begin(world)
    await agents.look(world)
    world.roll_call.begin(host.connected(world))
    for _, vm in world.store.all(VMS.plural):
        claim.recall(world, vm)
    keys: dict[kube.Key, None] = {CLOUD_KEY: None}
    for where in COLLECTIONS:
        for key, obj in world.store.all(where.plural):
            keys |= dict.fromkeys(dependents.dependents(world, key, obj))
    for key in keys:
        world.tell(key, 0.0)


def deliver(world: World, where: kube.Collection, event: str | None, obj: kube.Object) -> None:
    """Take in an event of the watch."""
    key = kube.key_of(where, obj)
    if event == "DELETED":
        # Said, not proven: who acts on it asks first.
        world.store.doubt(key)
        world.tell(dependents.settler(key, obj), 0.0)
    elif world.store.put(where, obj):
        for dependent in dependents.dependents(world, key, obj):
            world.tell(dependent, 0.0)


def _lost(world: World, key: kube.Key, obj: kube.Object) -> None:
    if key.plural == INSTANCES.plural:
        world.user_data.discard(obj["metadata"]["uid"])
        if world.guard.forget(obj["spec"]["owner"]["uid"]):
            world.tell(CLOUD_KEY, 0.0)
    if key.plural == ALLOCATIONS.plural:
        world.cooling.forget(obj["metadata"]["uid"])
    for dependent in dependents.after_loss(world, key, obj):
        world.tell(dependent, _ONE_BY_ONE)


async def _settle(world: World, key: kube.Key) -> None:
    """What has no work of its own, and can only be gone: who uses it is told by its loss."""
    if world.store.is_doubtful(key):
        await world.current(_COLLECTION_OF[key.plural], key)


async def _wake(world: World) -> None:
    """Have those look again who wait for others to come or go, or for room."""
    if world.candidates.has_more_room():
        for key in dependents.unplaced(world):
            world.tell(key, 0.0)
    for namespace, for_all in world.census.stirred().items():
        for key in dependents.beside(world, namespace, all_of_them=for_all):
            world.tell(key, 0.0)


async def _count_anew(world: World) -> None:
    """Have Hosts tell what guests take of them."""
    for name in world.candidates.untold():
        world.tell(kube.Key(HOSTS.plural, "", name), 0.0)


async def _sweep(world: World) -> None:
    await sweep.sweep(world, COLLECTIONS)
    await host.mend(world)


async def _sweep_one(world: World, where: kube.Collection) -> None:
    await sweep.sweep(world, (where,))


RECONCILERS: Mapping[str, Callable[[World, kube.Key], Awaitable[float | None]]] = {
    VMS.plural: virtualmachine.reconcile,
    HOSTS.plural: host.reconcile,
    CLUSTER_IMAGES.plural: offers.reconcile_image,
    IMAGES.plural: offers.reconcile_image,
    CLUSTER_NETWORKS.plural: offers.reconcile_network,
    NETWORKS.plural: offers.reconcile_network,
    POOLS.plural: offers.reconcile_pool,
    CLOUDS.plural: cloud.reconcile,
    CLASSES.plural: _settle,
    HOST_STATES.plural: _settle,
    INSTANCES.plural: _settle,
    ALLOCATIONS.plural: _settle,
    BLOCKS.plural: blocks.reconcile,
}
"""What is done about a key, by the plural of its kind."""
