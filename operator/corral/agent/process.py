"""The agent's process, put together and run: `corral agent run` calls it, and so do the tests.

Nothing here decides anything. Where one of its tasks dies, the whole process ends with that task's error: an agent that
is half alive would look healthy.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
import functools
import pathlib
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import structlog

import corral
from corral import history, kube, metrics, periodic, queue, scrape, store, watching
from corral.agent import desired, events, guest, measured, rooms, userdata
from corral.agent.blocks import Blocks
from corral.agent.fabric import Calls, Fabric
from corral.agent.fetches import Fetches
from corral.agent.filtering import Filter
from corral.agent.guest import Guests
from corral.agent.host import HOST_STATES, HostStates, Identity, Machine, MarksDiffer, tell_marks
from corral.agent.instance import INSTANCES, OWNER, Clock, Instances
from corral.agent.kept import Kept, NotKept
from corral.agent.lease import Lease
from corral.agent.sync import Sync
from corral.api import objects
from corral.api.v1alpha1 import host, instance
from corral_drivers import errors

SWEPT_EVERY = 600.0
"""Seconds between two lists of our own."""

_ASKED_EVERY = 2.0
_REMINDED_EVERY = 30.0

log = structlog.get_logger(__name__)

Connect = Callable[[str | None], Awaitable[kube.Kube]]
Build = Callable[[str, rooms.Place], rooms.Rooms]


@dataclass(frozen=True, slots=True)
class Settings:
    """Which host this is, how its API server and its hypervisor are reached, and where its guests' files are.

    `liveness` is where the probe answers, `metrics` where they are served. Every `look_every` seconds (0: never)
    everything is looked at anew, and with `events` also what the host tells of by itself, at once. Where the API server
    does not answer within `api_within` seconds of the agent's start, the agent goes by what it kept until it does.
    """

    host: str
    kubeconfig: str | None
    state_dir: str
    hypervisor_uri: str
    liveness: str | None
    metrics: str | None = None
    look_every: float = 30.0
    events: bool = True
    sweep_every: float = SWEPT_EVERY
    watches: watching.Settings = field(default_factory=watching.Settings)
    api_within: float = 5.0

    @property
    def namespace(self) -> str:
        """The one namespace that this agent reads and writes."""
        return f"corral-host-{self.host}"


async def connect(kubeconfig: str | None) -> kube.Kube:
    """The agent's connection to the API server."""
    return await kube.Kube.connect(kubeconfig, user_agent="corral-agent")


async def run(
    settings: Settings,
    stop: asyncio.Event,
    *,
    connect: Connect = connect,
    build: Build = rooms.build,
    counted: metrics.Metrics | None = None,
) -> None:
    """Run until `stop` is set; no guest is touched by that. `build` makes the rooms of a driver.

    Raises what ended it: an exception group where a task died.
    """
    counted = counted or metrics.Metrics()
    api = await connect(settings.kubeconfig)
    api.count(counted)
    kept = Kept(settings.state_dir)
    try:
        async with scrape.serving(settings.metrics, counted.registry):
            # Once, and anew wherever the API server's history was rewritten.
            while not stop.is_set():
                state = await _first(stop, lambda: _host_state(api, settings, kept))
                if state is not None:
                    await _serve(api, settings, state, kept, build, stop, counted)
    finally:
        await api.close()
    log.info("the agent stops; guests run on", host=settings.host)


async def _serve(
    api: kube.Kube,
    settings: Settings,
    state: host.HostStateSpec,
    kept: Kept,
    build: Build,
    stop: asyncio.Event,
    counted: metrics.Metrics,
) -> None:
    place = rooms.Place(state.cloud, state.host, settings.hypervisor_uri, settings.state_dir)
    made = measured.rooms(build(state.hypervisor.driver, place), counted)
    try:
        marks = await asyncio.to_thread(_marks, state, pathlib.Path(settings.state_dir))
        agent = _Agent(api, settings, made, state, marks, kept, counted)
        try:
            await agent.run(stop)
        finally:
            await agent.fetches.close()
    finally:
        await made.close()


def _marks(state: host.HostStateSpec, folder: pathlib.Path) -> desired.Host:
    """What guests have of their host, with the folders for it made."""
    consoles, variables = folder / "console", folder / "uefi"
    consoles.mkdir(mode=0o755, parents=True, exist_ok=True)
    # The hypervisor makes files in it, of which it opens each by its name.
    variables.mkdir(mode=0o711, exist_ok=True)
    return desired.Host(state.cloud, state.host, str(consoles), str(variables))


class _Agent:
    """The agent's parts, wired: whatever changes becomes a key, and every key a pass."""

    def __init__(
        self,
        api: kube.Kube,
        settings: Settings,
        made: rooms.Rooms,
        state: host.HostStateSpec,
        marks: desired.Host,
        kept: Kept,
        counted: metrics.Metrics,
    ) -> None:
        clock = Clock(time.monotonic, lambda: datetime.datetime.now(datetime.UTC))
        known = store.Store()
        known.index(INSTANCES.plural, OWNER, lambda obj: str(obj["spec"]["owner"]["uid"]))
        self._api = api
        self._settings = settings
        self._rooms = made
        self._state = state
        self._kept = kept
        self._metrics = counted
        self._queue: queue.Queue[kube.Key] = queue.Queue(
            self._reconcile,
            queue.Settings(),
            expected=(kube.ApiError, errors.DriverError, NotKept),
            ended=lambda key, outcome, seconds: counted.reconciled(key.plural, outcome, seconds),
        )
        counted.follow(lambda: self._queue.depth, lambda: self._queue.oldest)
        report = kube.Key(HOST_STATES.plural, settings.namespace, settings.host)
        self._history = history.History(api, known, settings.namespace)
        self._sync = Sync(api, known, self._history, self._queue, report)
        self.fetches = Fetches(made.images, self._sync.changed, clock.monotonic)
        everyone = functools.partial(_everyone, known)
        self._filter = Filter(made.firewall, everyone, kept, state, lambda: self._put_back("firewall"))
        calls = Calls(tell=lambda: self._queue.add(report), put_back=self._put_back, clock=clock.monotonic)
        self._fabric = Fabric(made, state, calls)
        for took in (self._filter.took, self._fabric.took):
            known.listen(took)
        told = guest.Calls(
            clock=clock.monotonic,
            read_secret=userdata.reader(api, settings.namespace),
            put_back=self._put_back,
            announces=self._fabric.announces,
        )
        guests = Guests(made, marks, self.fetches, self._filter, told)
        self._instances = Instances(api, known, guests, kept, settings.host, clock)
        self._blocks = Blocks(made.routing, known, lambda: self._put_back("routing"))
        self._host = HostStates(
            api, known, self._machine(), Identity(settings.host, corral.version()), clock, self._sync.sweep
        )
        self._listed: asyncio.Queue[kube.Collection] = asyncio.Queue()
        self._lease = Lease(api, self._history, settings.namespace, settings.host, clock.now)

    def _machine(self) -> Machine:
        """What the HostState tells of, and is heeded by."""
        fabric, state = self._fabric, self._state
        return Machine(
            self._rooms,
            self.fetches,
            self._kept,
            self._blocks,
            host.Marks(cloud=state.cloud, host=state.host),
            lambda: fabric.report,
            fabric.heed,
        )

    def _put_back(self, room: str) -> None:
        """Count that something in this room was put back that somebody had changed."""
        self._metrics.drift.labels(room).inc()

    async def run(self, stop: asyncio.Event) -> None:
        if not await _first(stop, self._prepare):
            return
        await self._begin()
        self._filter.wake()
        ended = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            background = [
                tasks.create_task(self._history.ends(stop, ended)),
                tasks.create_task(self._history.keep()),
                tasks.create_task(self._queue.run()),
                tasks.create_task(periodic.every(self._settings.sweep_every, self._sync.sweep)),
                tasks.create_task(periodic.after_lists(self._listed, self._sweep_after)),
                tasks.create_task(self._join(stop)),
                tasks.create_task(self._fabric.keep()),
                tasks.create_task(self._filter.run()),
            ]
            if self._settings.look_every > 0:
                background.append(tasks.create_task(periodic.every(self._settings.look_every, self._look)))
            heard = contextlib.ExitStack()
            if self._settings.events:
                heard = await events.listen(self._rooms, self._sync, self._filter.wake)
            self._sync.look()
            with heard:
                await self._watch(ended)
            for task in background:
                task.cancel()

    async def _prepare(self) -> bool:
        try:
            # Before anything else: a guest that boots right now, without a seed, waits for it.
            await self._rooms.dhcp.prepare()
        except errors.DriverError as error:
            # Every guest's pass tries again, and says so: those that have a seed need not wait for that.
            log.warning("guests that ask for their addresses are not answered yet", why=error.message)
        await self._rooms.links.prepare()
        await self._blocks.begin(self._state.blocks)
        return True

    async def _begin(self) -> None:
        """Know every Instance: from the API server, or where that does not answer, as they were kept."""
        try:
            async with asyncio.timeout(self._settings.api_within):
                await self._sync.fill()
        except (kube.ApiError, TimeoutError):
            self._instances.is_current = False
            kept = await asyncio.to_thread(lambda: list(self._kept.all()))
            self._sync.take_up(kept)
            log.warning("the API server does not answer; the agent goes by what it kept", instances=len(kept))

    async def _join(self, stop: asyncio.Event) -> None:
        """Ask the API server until it has answered, and show it signs of life from then on."""
        if not self._instances.is_current:
            await _first(stop, self._catch_up)
        await self._lease.keep()

    async def _catch_up(self) -> bool:
        await self._sync.fill()
        self._instances.is_current = True
        self._sync.look()
        log.info("the API server answers; the agent goes by its word again")
        return True

    async def _watch(self, stop: asyncio.Event) -> None:
        await watching.watch(
            self._api,
            (instance.RESOURCE, host.HOST_STATE),
            self._sync.deliver,
            dataclasses.replace(
                self._settings.watches, namespace=self._settings.namespace, liveness=self._settings.liveness
            ),
            stop,
            listed=self._listed.put_nowait,
            resumed=self._history.resumed,
        )

    async def _reconcile(self, key: kube.Key) -> float | None:
        reconciler = self._instances if key.plural == INSTANCES.plural else self._host
        return await reconciler.reconcile(key)

    async def _look(self) -> None:
        self._sync.look()
        self._fabric.wake()
        self._filter.wake()

    async def _sweep_after(self, where: kube.Collection) -> None:
        # A host has one HostState, and asks for it before it believes that it is gone.
        if where == INSTANCES:
            await self._sync.sweep()


def _everyone(known: store.Store) -> Iterator[kube.Object]:
    return (obj for _, obj in known.all(INSTANCES.plural))


async def _first(stop: asyncio.Event, ask: Callable[[], Awaitable[Any]]) -> Any:
    """The first answer that is one, None where the agent is stopped before. What fails is said, and tried again."""
    said = ""
    reminded = float("-inf")
    while not stop.is_set():
        try:
            if answer := await ask():
                return answer
            why = "there is no HostState of this host yet; the controller makes it for a Host of this name"
        except (kube.ApiError, errors.DriverError, objects.NotUnderstood, MarksDiffer) as error:
            why = str(error)
        if why != said or time.monotonic() - reminded > _REMINDED_EVERY:
            log.warning("the agent waits and asks again", why=why)
            said, reminded = why, time.monotonic()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), _ASKED_EVERY)
    return None


async def _host_state(api: kube.Kube, settings: Settings, kept: Kept) -> host.HostStateSpec | None:
    """What this host is: as the API server says, or where that does not answer, as it was kept."""
    try:
        async with asyncio.timeout(settings.api_within):
            raw = await api.get(HOST_STATES, settings.namespace, settings.host)
    except (kube.ApiError, TimeoutError) as error:
        if (before := await asyncio.to_thread(kept.host)) is not None:
            return before
        if isinstance(error, TimeoutError):
            raise kube.ApiUnavailable("read the HostState", "the API server does not answer") from error
        raise
    if raw is None:
        return None
    spec = objects.parsed(raw, host.HostStateSpec, host.HostStateStatus).spec
    before = await asyncio.to_thread(kept.host)
    if before is not None and (before.cloud, before.host) != (spec.cloud, spec.host):
        marks = host.Marks(cloud=before.cloud, host=before.host)
        await tell_marks(api, raw, marks, datetime.datetime.now(datetime.UTC))
        raise MarksDiffer(settings.host)
    try:
        await kept.keep_host(spec)
    except NotKept as error:
        log.warning("the host's state is not kept for a time without API server", why=str(error))
    return spec
