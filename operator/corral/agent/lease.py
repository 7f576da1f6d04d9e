"""The agent's sign of life: a Lease in its own namespace, renewed as long as the agent's event loop turns.

The controller tells by it which hosts answer; it fences nothing.
"""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Callable

import structlog

from corral import deadlines, kube

NAME = "corral-agent"
LABEL = "corral.dev/agent"
"""Its value is the host's name; the controller lists the Leases of all agents by it."""

log = structlog.get_logger(__name__)


class Lease:
    """The Lease of the agent of `host`."""

    def __init__(self, api: kube.Kube, namespace: str, host: str, now: Callable[[], datetime.datetime]) -> None:
        self._api = api
        self._namespace = namespace
        self._host = host
        self._now = now
        self._seen: kube.Object | None = None

    async def keep(self) -> None:
        """Renew until cancelled. A failure is logged and the next renewal tries again."""
        while True:
            try:
                await self.renew()
            except kube.ApiError as error:
                self._seen = None
                log.warning("the agent's lease was not renewed", why=str(error))
            await asyncio.sleep(deadlines.LEASE_RENEWED_EVERY)

    async def renew(self) -> None:
        """One sign of life. Raises `kube.ApiError`."""
        if self._seen is None:
            self._seen = await self._api.get(kube.LEASES, self._namespace, NAME)
        if self._seen is None:
            metadata = {"name": NAME, "namespace": self._namespace, "labels": {LABEL: self._host}}
            self._seen = await self._api.create(kube.LEASES, {"metadata": metadata, "spec": self._spec()})
        else:
            body = {"metadata": {"labels": {LABEL: self._host}}, "spec": self._spec()}
            self._seen = await self._api.patch(kube.LEASES, self._seen, body)

    def _spec(self) -> dict[str, object]:
        return {
            "holderIdentity": self._host,
            "leaseDurationSeconds": int(deadlines.AGENT_SILENT_AFTER),
            "renewTime": self._now().astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        }
