"""The one place that knows kopf: it owns the process's watches and probes, and hands every event on as a key.

The controller and the agent say which kinds to watch and what to call. Kopf's retries, daemons, timers, finalizers and
annotations are not used: they would write to objects that are not ours to write.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

import aiohttp
import kopf

from corral import kube
from corral.api import schema

Deliver = Callable[[kube.Collection, str | None, kube.Object], None]
"""Called with the collection, the event's type (None at the first list, ADDED, MODIFIED, DELETED) and the object."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What is watched: cluster-wide where `namespace` is None.

    `liveness` is where the probe answers, such as `http://127.0.0.1:8080/healthz`.
    """

    namespace: str | None = None
    liveness: str | None = None
    connections: int = 32


async def watch(
    api: kube.Kube, kinds: Iterable[schema.Resource], deliver: Deliver, settings: Settings, stop: asyncio.Event
) -> None:
    """Deliver every event of these kinds until `stop` is set. Events may come twice, late, or not at all."""
    registry = kopf.OperatorRegistry()
    for resource in kinds:
        _register(registry, kube.collection(resource), deliver)
    session = await _session(api, settings.connections)

    async def login(**_: Any) -> kopf.AiohttpSession:
        return kopf.AiohttpSession(server=api.configuration.host, aiohttp_session=session)

    kopf.on.login(registry=registry, retries=3)(login)
    try:
        tasks = await kopf.spawn_tasks(
            registry=registry,
            settings=_settings(),
            clusterwide=settings.namespace is None,
            namespaces=() if settings.namespace is None else (settings.namespace,),
            liveness_endpoint=settings.liveness,
            standalone=True,
            stop_flag=stop,
        )
        await _until_one_ends(tasks)
    finally:
        await session.close()


async def _until_one_ends(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Kopf's root tasks end together. Raises what ended the first of them.

    `kopf.operator` would also cancel every task of the loop that was started after it, ours among them.
    """
    try:
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        pending = set(tasks)
        while pending:
            for task in pending:
                task.cancel()
            # A task that was busy when it was cancelled may have swallowed that.
            _, pending = await asyncio.wait(pending, timeout=5)
    for task in ended:
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error


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
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 330
    settings.watching.connect_timeout = 10
    settings.watching.inactivity_timeout = 120
    settings.watching.reconnect_backoff = 0.5
    settings.execution.max_workers = 1
    return settings


async def _session(api: kube.Kube, connections: int) -> aiohttp.ClientSession:
    configuration = api.configuration
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, configuration.key_file)
    token = await configuration.get_api_key_with_prefix("BearerToken")
    return aiohttp.ClientSession(
        # Kopf's own session has no bound, and opens a connection for every object in flight.
        connector=aiohttp.TCPConnector(limit=connections, ssl=context),
        headers={"Authorization": token} if token else {},
    )
