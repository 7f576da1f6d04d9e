"""The watches themselves: they go on whatever happens to them, and answer the probe meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
import uuid
from collections.abc import AsyncIterator, Iterable

import aiohttp
import pytest

from corral import kube, watching
from corral.api import schema
from corral.api.v1alpha1 import virtualmachineclass
from corral.controller import world

from .simulated_cloud import PATIENCE, until

pytestmark = pytest.mark.api

RESOURCE = virtualmachineclass.RESOURCE
SETTINGS = watching.Settings(server_timeout=3.0, grace=0.5, silence=1.5)


class Seen:
    """Names that the watches told of, and how often a list was over."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.lists = 0

    def deliver(self, _where: kube.Collection, _event: str | None, obj: kube.Object) -> None:
        self.names.add(obj["metadata"]["name"])

    def listed(self, _where: kube.Collection) -> None:
        self.lists += 1


@contextlib.asynccontextmanager
async def watches(
    api: kube.Kube, seen: Seen, kinds: Iterable[schema.Resource], settings: watching.Settings
) -> AsyncIterator[asyncio.Task[None]]:
    stop = asyncio.Event()
    task = asyncio.create_task(watching.watch(api, kinds, seen.deliver, settings, stop, listed=seen.listed))
    try:
        yield task
    finally:
        stop.set()
        async with asyncio.timeout(PATIENCE):
            await asyncio.wait([task])


@contextlib.asynccontextmanager
async def a_class(api: kube.Kube) -> AsyncIterator[str]:
    name = f"watched-{uuid.uuid4().hex[:6]}"
    made = await api.create(world.CLASSES, {"metadata": {"name": name}, "spec": {"cpu": 1, "memory": "64Mi"}})
    try:
        yield name
    finally:
        await api.delete(world.CLASSES, made)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


async def test_a_watch_that_was_lost_without_a_word_begins_anew(admin: kube.Kube, crds: None) -> None:
    seen = Seen()

    async def lists() -> int:
        return seen.lists

    async with watches(admin, seen, (RESOURCE,), SETTINGS):
        await until(lists, lambda count: count == 1)
        # Nothing tells kopf, nor anybody else, that this one is gone.
        (watcher,) = (task for task in asyncio.all_tasks() if task.get_name().startswith("watcher for virtualmachinec"))
        watcher.cancel()
        begun = time.monotonic()
        await until(lists, lambda count: count == 2, patience=60)
        assert time.monotonic() - begun > SETTINGS.server_timeout
        async with a_class(admin) as name:

            async def names() -> set[str]:
                return seen.names

            await until(names, lambda found: name in found)
    assert not _is_doomed(), "kopf is to kill the process"


def _is_doomed() -> bool:
    """Whether the event loop is to signal its own process at some time."""
    loop = asyncio.get_running_loop()
    scheduled: list[asyncio.TimerHandle] = loop._scheduled  # type: ignore[attr-defined]  # asyncio tells nobody else
    return any(not one.cancelled() and "pthread_kill" in repr(one) for one in scheduled)


async def test_who_watches_nothing_answers_the_probe(admin: kube.Kube) -> None:
    port = free_port()
    settings = watching.Settings(liveness=f"http://127.0.0.1:{port}/healthz", grace=0.2, server_timeout=0.2)
    async with watches(admin, Seen(), (), settings) as task, aiohttp.ClientSession() as session:

        async def status() -> int:
            with contextlib.suppress(aiohttp.ClientConnectionError):
                async with session.get(f"http://127.0.0.1:{port}/healthz") as answer:
                    return answer.status
            return 0

        await until(status, lambda code: code == 200)
        # Longer than a watch would have had its time.
        await asyncio.sleep(1.5)
        assert await status() == 200
        assert not task.done()


async def test_a_probe_that_cannot_answer_is_an_error(admin: kube.Kube) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        settings = watching.Settings(liveness=f"http://127.0.0.1:{listener.getsockname()[1]}/healthz")
        async with watches(admin, Seen(), (), settings) as task:
            async with asyncio.timeout(PATIENCE):
                await asyncio.wait([task])
            with pytest.raises(OSError, match="in use"):
                task.result()
