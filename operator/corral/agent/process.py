"""The agent's process, put together and run: `corral agent run` calls it, and so do the tests.

Nothing here decides anything. Where one of its tasks dies, the whole process ends with that task's error: an agent that
is half alive would look healthy.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import pathlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import structlog

import corral
from corral import kube, periodic, queue, store, watching
from corral.agent import desired, rooms
from corral.agent.fetches import Fetches
from corral.agent.guest import Guests
from corral.agent.host import HOST_STATES, HostStates, Identity
from corral.agent.instance import INSTANCES, OWNER, Clock, Instances
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

Build = Callable[[str, rooms.Place], rooms.Rooms]


@dataclass(frozen=True, slots=True)
class Settings:
    """Which host this is, how its API server and its hypervisor are reached, and where its guests' files are.

    `liveness` is where the probe answers; every `look_every` seconds everything is looked at anew.
    """

    host: str
    kubeconfig: str | None
    state_dir: str
    hypervisor_uri: str
    liveness: str | None
    look_every: float = 30.0

    @property
    def namespace(self) -> str:
        """The one namespace that this agent reads and writes."""
        return f"corral-host-{self.host}"


async def run(settings: Settings, stop: asyncio.Event, *, build: Build = rooms.build) -> None:
    """Run until `stop` is set; no guest is touched by that. `build` makes the rooms of a driver.

    Raises what ended it: an exception group where a task died.
    """
    api = await kube.Kube.connect(settings.kubeconfig, user_agent="corral-agent")
    try:
        state = await _first(stop, lambda: _host_state(api, settings))
        if state is not None:
            await _serve(api, settings, state, build, stop)
    finally:
        await api.close()
    log.info("the agent stops; guests run on", host=settings.host)


async def _serve(
    api: kube.Kube, settings: Settings, state: host.HostStateSpec, build: Build, stop: asyncio.Event
) -> None:
    place = rooms.Place(state.cloud, state.host, settings.hypervisor_uri, settings.state_dir)
    made = build(state.hypervisor.driver, place)
    try:
        consoles = pathlib.Path(settings.state_dir) / "console"
        await asyncio.to_thread(consoles.mkdir, mode=0o755, parents=True, exist_ok=True)
        agent = _Agent(api, settings, made, desired.Host(state.cloud, state.host, str(consoles)))
        try:
            await agent.run(stop)
        finally:
            await agent.fetches.close()
    finally:
        await made.hypervisor.close()


class _Agent:
    """The agent's parts, wired: whatever changes becomes a key, and every key a pass."""

    def __init__(self, api: kube.Kube, settings: Settings, made: rooms.Rooms, marks: desired.Host) -> None:
        clock = Clock(time.monotonic, lambda: datetime.datetime.now(datetime.UTC))
        known = store.Store()
        known.index(INSTANCES.plural, OWNER, lambda obj: str(obj["spec"]["owner"]["uid"]))
        self._api = api
        self._settings = settings
        self._rooms = made
        self._queue: queue.Queue[kube.Key] = queue.Queue(
            self._reconcile, queue.Settings(), expected=(kube.ApiError, errors.DriverError)
        )
        report = kube.Key(HOST_STATES.plural, settings.namespace, settings.host)
        self._sync = Sync(api, known, self._queue, settings.namespace, report)
        self.fetches = Fetches(made.images, self._sync.changed, clock.monotonic)
        guests = Guests(made, marks, self.fetches, clock.monotonic)
        self._instances = Instances(api, known, guests, settings.host, clock)
        identity = Identity(settings.host, corral.version())
        self._host = HostStates(api, known, made, self.fetches, identity, clock)
        self._listed: asyncio.Queue[kube.Collection] = asyncio.Queue()
        self._lease = Lease(api, settings.namespace, settings.host, clock.now)

    async def run(self, stop: asyncio.Event) -> None:
        if not await _first(stop, self._prepare):
            return
        async with asyncio.TaskGroup() as tasks:
            background = [
                tasks.create_task(self._queue.run()),
                tasks.create_task(periodic.every(self._settings.look_every, self._look)),
                tasks.create_task(periodic.every(SWEPT_EVERY, self._sync.sweep)),
                tasks.create_task(periodic.after_lists(self._listed, self._sweep_after)),
                tasks.create_task(self._lease.keep()),
            ]
            self._rooms.hypervisor.watch(self._sync.changed)
            self._sync.look()
            await self._watch(stop)
            for task in background:
                task.cancel()

    async def _prepare(self) -> bool:
        await self._rooms.links.prepare()
        await self._sync.fill()
        return True

    async def _watch(self, stop: asyncio.Event) -> None:
        await watching.watch(
            self._api,
            (instance.RESOURCE, host.HOST_STATE),
            self._sync.deliver,
            watching.Settings(namespace=self._settings.namespace, liveness=self._settings.liveness),
            stop,
            listed=self._listed.put_nowait,
        )

    async def _reconcile(self, key: kube.Key) -> float | None:
        reconciler = self._instances if key.plural == INSTANCES.plural else self._host
        return await reconciler.reconcile(key)

    async def _look(self) -> None:
        self._sync.look()

    async def _sweep_after(self, where: kube.Collection) -> None:
        # A host has one HostState, and asks for it before it believes that it is gone.
        if where == INSTANCES:
            await self._sync.sweep()


async def _first(stop: asyncio.Event, ask: Callable[[], Awaitable[Any]]) -> Any:
    """The first answer that is one, None where the agent is stopped before. What fails is said, and tried again."""
    said = ""
    reminded = float("-inf")
    while not stop.is_set():
        try:
            if answer := await ask():
                return answer
            why = "there is no HostState of this host yet; the controller makes it for a Host of this name"
        except (kube.ApiError, errors.DriverError) as error:
            why = str(error)
        if why != said or time.monotonic() - reminded > _REMINDED_EVERY:
            log.warning("the agent waits and asks again", why=why)
            said, reminded = why, time.monotonic()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), _ASKED_EVERY)
    return None


async def _host_state(api: kube.Kube, settings: Settings) -> host.HostStateSpec | None:
    raw = await api.get(HOST_STATES, settings.namespace, settings.host)
    return None if raw is None else objects.parsed(raw, host.HostStateSpec, host.HostStateStatus).spec
