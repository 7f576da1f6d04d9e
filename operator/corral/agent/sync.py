"""What keeps the agent's picture of its namespace true: the first list, events, periodic looks, and the sweep.

Events wake at once; but a watch can go blind, and a relist tells of no deletion. So everything is looked at anew every
half minute, and every ten minutes a list of our own says what the store has missed.
"""

from __future__ import annotations

import structlog

from corral import kube, queue, store
from corral.agent.host import HOST_STATES
from corral.agent.instance import INSTANCES, OWNER

log = structlog.get_logger(__name__)


class Sync:
    """The picture of one namespace, and whom to wake. `report` is the key of the host's HostState."""

    def __init__(
        self, api: kube.Kube, known: store.Store, wake: queue.Queue[kube.Key], namespace: str, report: kube.Key
    ) -> None:
        self._api = api
        self._store = known
        self._queue = wake
        self._namespace = namespace
        self._report = report

    async def fill(self) -> None:
        """Take in everything there is. Until this is done, nothing is known to be an orphan."""
        for where in (HOST_STATES, INSTANCES):
            async for page in self._api.pages(where, self._namespace):
                for obj in page:
                    self._store.put(where, obj)

    def deliver(self, where: kube.Collection, event: str | None, obj: kube.Object) -> None:
        """Take in an event of the watch."""
        key = kube.key_of(where, obj)
        if event == "DELETED":
            # Said, not proven: whoever acts on it asks first.
            self._store.doubt(key)
            self._queue.add(key)
        elif self._store.put(where, obj):
            self._queue.add(key)

    def changed(self, owner: str) -> None:
        """Something of this owner changed on the host."""
        for obj in self._store.by(INSTANCES.plural, OWNER, owner):
            self._queue.add(kube.key_of(INSTANCES, obj))
        self._queue.add(self._report)

    def look(self) -> None:
        """Have everything looked at anew."""
        for where in (INSTANCES, HOST_STATES):
            for key, _ in self._store.all(where.plural):
                self._queue.add(key)

    async def sweep(self) -> None:
        """Compare the store with a list, and have what differs read anew. Raises `kube.ApiError`."""
        before = {key: store.version(obj) for key, obj in self._store.all(INSTANCES.plural)}
        listed: dict[kube.Key, int] = {}
        async for page in self._api.pages(INSTANCES, self._namespace, metadata_only=True):
            listed |= {kube.key_of(INSTANCES, obj): store.version(obj) for obj in page}
        missed = [key for key in before if key not in listed]
        for key in missed:
            self._store.doubt(key)
            self._queue.add(key)
        for key, version in listed.items():
            held = self._store.get(key)
            if held is None or store.version(held) < version:
                missed.append(key)
                await self._read(key)
        log.info("swept", instances=len(listed), missed=len(missed))

    async def _read(self, key: kube.Key) -> None:
        obj = await self._api.get(INSTANCES, key.namespace, key.name)
        if obj is not None and self._store.put(INSTANCES, obj):
            self._queue.add(key)
