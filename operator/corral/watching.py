"""The one place that knows kopf: it owns the process's watches and probes, and hands every event on as a key.

The controller and the agent say which kinds to watch and what to call. Kopf's retries, daemons, timers, finalizers and
annotations are not used: they would write to objects that are not ours to write.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import itertools
import math
import signal
import threading
import time
import urllib.parse
from collections.abc import Callable, Collection, Coroutine, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import kopf
import structlog

from corral import kube
from corral.api import schema

log = structlog.get_logger(__name__)

_STARTED: contextvars.ContextVar[set[asyncio.Task[Any]] | None] = contextvars.ContextVar("started", default=None)

Deliver = Callable[[kube.Collection, str | None, kube.Object], None]
"""Called with the collection, the event's type (None at the first list, ADDED, MODIFIED, DELETED) and the object."""

Listed = Callable[[kube.Collection], None]
"""Called when a list is over, the first one or one after a gap, and when a watch goes on after the API server was away:
no event tells what had vanished before it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What is watched: cluster-wide where `namespace` is None. Times are in seconds.

    `liveness` is where the probe answers, such as `http://127.0.0.1:8080/healthz`. The API server ends a watch after
    `server_timeout`, and has `grace` for it; one that tells nothing for `silence` is asked for anew.
    """

    namespace: str | None = None
    liveness: str | None = None
    connections: int = 32
    server_timeout: float = 300.0
    grace: float = 30.0
    silence: float = 120.0


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
    resumed: Listed = _nobody,
) -> None:
    """Deliver every event of these kinds until `stop` is set. Events may come twice, late, or not at all.

    `resumed` is called when a watch goes on from where it was interrupted, without a list. Whatever the API server
    answers, this goes on. Raises `OSError` where the probe can't answer at its address.
    """
    wanted = _Wanted(api, tuple(kinds), deliver, settings, listed, resumed)
    pauses = iter(_Backoffs())
    while not stop.is_set():
        begun = time.monotonic()
        try:
            # A task of its own: what kopf starts is known by who started it.
            await asyncio.create_task(_watch(wanted, stop), name="corral: watches")
        except Exception as error:  # kopf ends by any answer that it does not expect: a watch line that is no JSON
            if isinstance(error, OSError) and not isinstance(error, (aiohttp.ClientError, TimeoutError)):
                raise
            if time.monotonic() - begun > settings.silence:
                pauses = iter(_Backoffs())
            pause = next(pauses)
            log.warning("the watches ended, and begin anew", why=_why(error), again_in=pause)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), pause)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What to watch, and whom to tell."""

    api: kube.Kube
    kinds: tuple[schema.Resource, ...]
    deliver: Deliver
    settings: Settings
    listed: Listed
    resumed: Listed

    @property
    def paths(self) -> Mapping[str, kube.Collection]:
        """The kinds by the path of their lists and watches; the server's URL may have one of its own before it."""
        before = urllib.parse.urlsplit(self.api.server).path.rstrip("/")
        collections = map(kube.collection, self.kinds)
        return {before + where.path(self.settings.namespace): where for where in collections}


class _Dead(Exception):  # noqa: N818 - reads as what it says
    """A watch is not asked for any more."""


def _why(error: Exception) -> str:
    if isinstance(error, kopf.LoginError):
        return "the API server does not know us any more"
    told = error.args[0] if error.args else None
    return str(told) if isinstance(told, str) and told else "the API server's answer is none of a watch"


async def _watch(wanted: _Wanted, stop: asyncio.Event) -> None:
    api, settings = wanted.api, wanted.settings
    registry = kopf.OperatorRegistry()
    for resource in wanted.kinds:
        _register(registry, kube.collection(resource), wanted.deliver)
    asked = dict.fromkeys(wanted.paths, time.monotonic())
    session = await _session(api, settings.connections, _trace(wanted, asked))

    async def login(**_: Any) -> kopf.AiohttpSession:
        return kopf.AiohttpSession(server=api.server, aiohttp_session=session)

    kopf.on.login(registry=registry, retries=3)(login)
    started = _remember_tasks()
    try:
        with _signals_kept():
            tasks = await kopf.spawn_tasks(
                registry=registry,
                settings=_settings(settings),
                clusterwide=settings.namespace is None,
                namespaces=() if settings.namespace is None else (settings.namespace,),
                liveness_endpoint=settings.liveness,
                standalone=True,
            )
        await _run(tasks, asyncio.create_task(_guard(asked, settings)), stop)
    finally:
        await _end(started)
        await session.close()


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Give the process its signals back: kopf takes them to end its own tasks, which then only begin anew."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            asyncio.get_running_loop().remove_signal_handler(number)
            signal.signal(number, handler)


async def _guard(asked: Mapping[str, float], settings: Settings) -> None:
    """Raises `_Dead` once a watch is not asked for any more: kopf loses one that is cancelled, and tells nobody."""
    while True:
        await asyncio.sleep(settings.grace)
        oldest = min(asked.values(), default=time.monotonic())
        if time.monotonic() - oldest > settings.server_timeout + 3 * settings.grace:
            raise _Dead("a watch was not asked for anew in its time")


async def _run(tasks: Collection[asyncio.Task[Any]], guard: asyncio.Task[None], stop: asyncio.Event) -> None:
    """Let kopf's root tasks run until `stop` is set or one of them or the guard ends. Raises what ended it."""
    stopped = asyncio.create_task(stop.wait())
    try:
        done, _ = await asyncio.wait((*tasks, guard, stopped), return_when=asyncio.FIRST_COMPLETED)
    finally:
        await _end((*tasks, guard, stopped))
    for task in done:
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error


async def _end(tasks: Collection[asyncio.Task[Any]]) -> None:
    """End these, and those that come to them meanwhile: kopf's watchers start tasks to end with, and wait for them."""
    while pending := {task for task in tasks if not task.done()}:
        for task in pending:
            task.cancel()
        # A task that was busy when it was cancelled may have swallowed that.
        await asyncio.wait(pending, timeout=5)


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
        task.add_done_callback(_heed)
    return task


def _heed(task: asyncio.Task[Any]) -> None:
    """Kopf logs what ends its tasks; where several end at once it asks only one why, and Python would complain."""
    if not task.cancelled():
        task.exception()


class _Backoffs:
    """Seconds between the tries of a request: they grow, and never end."""

    def __iter__(self) -> Iterator[float]:
        return itertools.chain((0.5, 1.0, 2.0, 4.0, 8.0), itertools.repeat(10.0))


def _register(registry: kopf.OperatorRegistry, where: kube.Collection, deliver: Deliver) -> None:
    async def handle(event: kopf.RawEvent, **_: Any) -> None:
        deliver(where, event["type"], dict(event["object"]))

    kopf.on.event(schema.GROUP, schema.VERSION, where.plural, registry=registry, id=where.plural)(handle)


def _settings(ours: Settings) -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    # An event of ours is a key in our queue: kopf posts none, and scans for no other kind or namespace.
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.peering.standalone = True
    # The API server may be away for as long as it likes: kopf would give up after nine tries, and end the process.
    settings.networking.error_backoffs = _Backoffs()
    settings.watching.server_timeout = math.ceil(ours.server_timeout)
    settings.watching.client_timeout = ours.server_timeout + ours.grace
    settings.watching.connect_timeout = 10
    settings.watching.inactivity_timeout = ours.silence
    settings.watching.reconnect_backoff = 0.5
    settings.execution.max_workers = 1
    # Whenever it was ended otherwise than by our flag, kopf would have the process killed ten minutes later, unheard:
    # here the process goes on, and kopf begins anew.
    settings.process.ultimate_exiting_timeout = None
    return settings


def _trace(wanted: _Wanted, asked: dict[str, float]) -> aiohttp.TraceConfig:
    """Kopf tells nobody when a list is over; the request for the watch that follows it does.

    One that follows none goes on from where the watch was interrupted. `asked` takes up when each path was asked for
    last.
    """
    paths = wanted.paths
    lists: set[str] = set()
    failed: set[str] = set()

    async def begins(_session: Any, _context: Any, request: aiohttp.TraceRequestStartParams) -> None:
        path = request.url.path
        if path in asked:
            asked[path] = time.monotonic()
        if "watch" not in request.url.query:
            lists.add(path)
        elif path in lists and path in paths:
            lists.discard(path)
            wanted.listed(paths[path])
        elif path in paths:
            wanted.resumed(paths[path])

    async def fails(_session: Any, _context: Any, request: aiohttp.TraceRequestExceptionParams) -> None:
        failed.update({request.url.path} & paths.keys())

    async def ends(_session: Any, _context: Any, request: aiohttp.TraceRequestEndParams) -> None:
        path = request.url.path
        if path in failed and request.response.ok:
            # The API server was away: what it has may be another history's, whose versions have caught up already.
            failed.discard(path)
            wanted.listed(paths[path])

    trace = aiohttp.TraceConfig()
    trace.on_request_start.append(begins)
    trace.on_request_exception.append(fails)
    trace.on_request_end.append(ends)
    return trace


async def _session(api: kube.Kube, connections: int, trace: aiohttp.TraceConfig) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        # Kopf's own session has no bound, and opens a connection for every object in flight.
        connector=aiohttp.TCPConnector(limit=connections, ssl=api.ssl_context),
        headers=await api.headers(),
        trace_configs=[trace],
    )
