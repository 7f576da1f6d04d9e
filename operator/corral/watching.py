"""The one place that knows kopf: it owns the process's watches and probes, and hands every event on as a key.

The controller and the agent say which kinds to watch and what to call. Kopf's retries, daemons, timers, finalizers and
annotations are not used: they would write to objects that are not ours to write.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
from collections.abc import Callable, Collection, Coroutine, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import kopf

from corral import kube
from corral.api import schema

_STARTED: contextvars.ContextVar[set[asyncio.Task[Any]] | None] = contextvars.ContextVar("started", default=None)

Deliver = Callable[[kube.Collection, str | None, kube.Object], None]
"""Called with the collection, the event's type (None at the first list, ADDED, MODIFIED, DELETED) and the object."""

Listed = Callable[[kube.Collection], None]
"""Called when a list is over, the first one or one after a gap: no event tells what had vanished before it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What is watched: cluster-wide where `namespace` is None.

    `liveness` is where the probe answers, such as `http://127.0.0.1:8080/healthz`.
    """

    namespace: str | None = None
    liveness: str | None = None
    connections: int = 32


def _nobody(_where: kube.Collection) -> None:
    """Who has no use for it."""


async def watch(
    api: kube.Kube,
    kinds: Iterable[schema.Resource],
    deliver: Deliver,
    settings: Settings,
    stop: asyncio.Event,
    *,
    listed: Listed = _nobody,
) -> None:
    """Deliver every event of these kinds until `stop` is set. Events may come twice, late, or not at all."""
    # A task of its own: what kopf starts is known by who started it.
    await asyncio.create_task(_watch(api, tuple(kinds), deliver, settings, stop, listed), name="corral: watches")


async def _watch(
    api: kube.Kube,
    kinds: tuple[schema.Resource, ...],
    deliver: Deliver,
    settings: Settings,
    stop: asyncio.Event,
    listed: Listed,
) -> None:
    registry = kopf.OperatorRegistry()
    for resource in kinds:
        _register(registry, kube.collection(resource), deliver)
    paths = {kube.collection(resource).path(settings.namespace): kube.collection(resource) for resource in kinds}
    session = await _session(api, settings.connections, _trace(paths, listed))

    async def login(**_: Any) -> kopf.AiohttpSession:
        return kopf.AiohttpSession(server=api.server, aiohttp_session=session)

    kopf.on.login(registry=registry, retries=3)(login)
    started = _remember_tasks()
    try:
        tasks = await kopf.spawn_tasks(
            registry=registry,
            settings=_settings(),
            clusterwide=settings.namespace is None,
            namespaces=() if settings.namespace is None else (settings.namespace,),
            liveness_endpoint=settings.liveness,
            standalone=True,
        )
        await _run(tasks, stop)
    finally:
        await _end(started)
        await session.close()


async def _run(tasks: Collection[asyncio.Task[Any]], stop: asyncio.Event) -> None:
    """Let kopf's root tasks run until `stop` is set or one of them ends. Raises what ended it."""
    stopped = asyncio.create_task(stop.wait())
    try:
        done, _ = await asyncio.wait((*tasks, stopped), return_when=asyncio.FIRST_COMPLETED)
    finally:
        await _end((*tasks, stopped))
    for task in done:
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error


async def _end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        # A task that was busy when it was cancelled may have swallowed that.
        _, pending = await asyncio.wait(pending, timeout=5)


def _remember_tasks() -> set[asyncio.Task[Any]]:
    """From here on, every task that this one starts, and those that they start, are in the set until they are done.

    Kopf leaves some behind when it ends, and `kopf.operator` would cancel every task of the loop, whoever started it.
    """
    loop = asyncio.get_running_loop()
    if loop.get_task_factory() is None:
        loop.set_task_factory(_remembered)
    started: set[asyncio.Task[Any]] = set()
    _STARTED.set(started)
    return started


def _remembered(
    loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any] | Generator[Any, None, Any], **kwargs: Any
) -> asyncio.Task[Any]:
    task: asyncio.Task[Any] = asyncio.Task(coro, loop=loop, **kwargs)
    started = _STARTED.get()
    if started is not None:
        started.add(task)
        task.add_done_callback(started.discard)
    return task


class _Backoffs:
    """Seconds between the tries of a request: they grow, and never end."""

    def __iter__(self) -> Iterator[float]:
        return itertools.chain((0.5, 1.0, 2.0, 4.0, 8.0), itertools.repeat(10.0))


def _register(registry: kopf.OperatorRegistry, where: kube.Collection, deliver: Deliver) -> None:
    async def handle(event: kopf.RawEvent, **_: Any) -> None:
        deliver(where, event["type"], dict(event["object"]))

    kopf.on.event(schema.GROUP, schema.VERSION, where.plural, registry=registry, id=where.plural)(handle)


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    # An event of ours is a key in our queue: kopf posts none, and scans for no other kind or namespace.
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.peering.standalone = True
    # The API server may be away for as long as it likes: kopf would give up after nine tries, and end the process.
    settings.networking.error_backoffs = _Backoffs()
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 330
    settings.watching.connect_timeout = 10
    settings.watching.inactivity_timeout = 120
    settings.watching.reconnect_backoff = 0.5
    settings.execution.max_workers = 1
    return settings


def _trace(paths: Mapping[str, kube.Collection], listed: Listed) -> aiohttp.TraceConfig:
    """Kopf tells nobody when a list is over; the request for the watch that follows it does."""
    lists: set[str] = set()

    async def begins(_session: Any, _context: Any, request: aiohttp.TraceRequestStartParams) -> None:
        path = request.url.path
        if "watch" not in request.url.query:
            lists.add(path)
        elif path in lists and path in paths:
            lists.discard(path)
            listed(paths[path])

    trace = aiohttp.TraceConfig()
    trace.on_request_start.append(begins)
    return trace


async def _session(api: kube.Kube, connections: int, trace: aiohttp.TraceConfig) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        # Kopf's own session has no bound, and opens a connection for every object in flight.
        connector=aiohttp.TCPConnector(limit=connections, ssl=api.ssl_context),
        headers=await api.headers(),
        trace_configs=[trace],
    )
