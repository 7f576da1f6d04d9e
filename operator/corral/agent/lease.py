"""The agent's sign of life: a Lease in its own namespace, renewed as long as the agent's event loop turns.

The controller tells by it which hosts answer; it fences nothing. The agent tells by it whether history goes on: nobody
else writes it, so that a version below the last one can only come from a backup that was put back.
"""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Callable

import structlog

from corral import deadlines, history, kube, store

NAME = "corral-agent"
LABEL = "corral.dev/agent"
"""Its value is the host's name; the controller lists the Leases of all agents by it."""

log = structlog.get_logger(__name__)


class Lease:
    """The Lease of the agent of `host`."""

    def __init__(
        self, api: kube.Kube, seen: history.History, namespace: str, host: str, now: Callable[[], datetime.datetime]
    ) -> None:
        self._api = api
        self._history = seen
        self._namespace = namespace
        self._host = host
        self._now = now
        self._seen: kube.Object | None = None
        self._version = 0

    async def keep(self) -> None:
        """Renew until cancelled. A failure is logged and the next renewal tries again."""
        why = ""
        while True:
            try:
                await self.renew()
            except kube.ApiError as error:
                self._seen = None
                if why != str(error):
                    log.warning("the agent's lease was not renewed; it is tried again and again", why=str(error))
                why = str(error)
            else:
                why = ""
            await asyncio.sleep(deadlines.LEASE_RENEWED_EVERY)

    async def renew(self) -> None:
        """One sign of life. Raises `kube.ApiError`."""
        if self._seen is None:
            self._see(await self._api.get(kube.LEASES, self._namespace, NAME))
        try:
            await self._write()
        except (kube.ApiConflict, kube.ApiRefused):
            # It is another one than was seen, or gone.
            self._see(await self._api.get(kube.LEASES, self._namespace, NAME))
            await self._write()

    async def _write(self) -> None:
        """Make it, or write it as it was seen and no other."""
        metadata: dict[str, object] = {"labels": {LABEL: self._host}}
        if self._seen is None:
            metadata |= {"name": NAME, "namespace": self._namespace}
            self._see(await self._api.create(kube.LEASES, {"metadata": metadata, "spec": self._spec()}))
        else:
            metadata |= {"resourceVersion": self._seen["metadata"]["resourceVersion"]}
            body: kube.Object = {"metadata": metadata, "spec": self._spec()}
            self._see(await self._api.patch(kube.LEASES, self._seen, body))

    def _see(self, lease: kube.Object | None) -> None:
        version = 0 if lease is None else store.version(lease)
        if version < self._version:
            self._history.found(f"the agent's own Lease is at version {version}, and was at {self._version}")
        self._seen, self._version = lease, version

    def _spec(self) -> dict[str, object]:
        return {
            "holderIdentity": self._host,
            "leaseDurationSeconds": int(deadlines.AGENT_SILENT_AFTER),
            "renewTime": self._now().astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        }
