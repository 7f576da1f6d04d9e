"""Serves `/metrics`: both processes do, where they are told to, in their own event loop.

In the loop, not in a thread: what is asked at a scrape is read between two turns of the work, and an answer shows that
the loop turns. There is no TLS and no password: it is meant for loopback or a management network.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import prometheus_client
import structlog
from aiohttp import web
from prometheus_client import exposition

log = structlog.get_logger(__name__)


class NotServed(Exception):  # noqa: N818 - reads as what it says
    """`/metrics` can't be served where it was asked for: `args[0]` says why."""


@contextlib.asynccontextmanager
async def serving(address: str | None, registry: prometheus_client.CollectorRegistry) -> AsyncIterator[None]:
    """Serve the registry at `address`, as `127.0.0.1:9180` or `[::1]:9180`; None is nowhere. Raises `NotServed`."""
    if address is None:
        yield
        return
    host, port = endpoint(address)

    async def answer(request: web.Request) -> web.Response:
        encode, content_type = exposition.choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(registry), headers={"Content-Type": content_type})

    app = web.Application()
    app.router.add_get("/metrics", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise NotServed(f"metrics can't be served at {address}: {error.strerror}") from error
        log.info("metrics are served", at=f"http://{address}/metrics")
        yield
    finally:
        await runner.cleanup()


def endpoint(address: str) -> tuple[str, int]:
    """Host and port of `address`. Raises `NotServed`."""
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (host and colon and port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise NotServed(f"{address!r} is no address and port to serve metrics at")
    return host, int(port)
