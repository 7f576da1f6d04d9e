"""Whether the API server's history was rewritten: etcd was put back to a backup, and resourceVersions with it.

Whoever holds what it saw before would drop newer objects as older ones, and its watches, which ask for what comes after
a version that is not there any more, would be told nothing. So the controller and the agent forget everything and begin
anew, watches included: their processes make one of these for each beginning, and end it when `rewritten` is set.

What no answer shows while history goes on: a collection that is older than an object of it that was seen before, an
object that is older than it was, or one that was proven gone. The versions of one kind can be compared
(https://github.com/kubernetes/enhancements/tree/master/keps/sig-api-machinery/5504-comparable-resource-version).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import structlog

from corral import kube, store

_ASKED_EVERY = 2.0

log = structlog.get_logger(__name__)

Objects = Mapping[kube.Key, kube.Object]


class History:
    """What `known` has seen of the API server's history, in this namespace or in all."""

    def __init__(self, api: kube.Kube, known: store.Store, namespace: str | None = None) -> None:
        self.rewritten = asyncio.Event()
        self._api = api
        self._store = known
        self._namespace = namespace
        self._unsure: dict[kube.Collection, None] = {}
        self._resumed = asyncio.Event()

    def found(self, why: str) -> None:
        """It was rewritten: `why` is what shows that."""
        if not self.rewritten.is_set():
            log.warning("the API server's history was rewritten, as by a backup put back: beginning anew", why=why)
            self.rewritten.set()

    def resumed(self, where: kube.Collection) -> None:
        """A watch of this collection goes on after it was interrupted: who knows what was put back meanwhile."""
        self._unsure[where] = None
        self._resumed.set()

    async def keep(self) -> None:
        """Look at every collection whose watch goes on, until cancelled."""
        while True:
            await self._resumed.wait()
            self._resumed.clear()
            while self._unsure:
                where, _ = self._unsure.popitem()
                try:
                    await self._ask(where)
                except kube.ApiError as error:
                    log.info("whether history goes on could not be asked; it is asked again", why=str(error))
                    self._unsure[where] = None
                    await asyncio.sleep(_ASKED_EVERY)

    async def ends(self, stop: asyncio.Event, ended: asyncio.Event) -> None:
        """Set `ended` once `stop` is set, or history is found rewritten: whichever comes first."""
        waits = [asyncio.create_task(event.wait()) for event in (stop, self.rewritten)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            ended.set()
        finally:
            for wait in waits:
                wait.cancel()

    async def _ask(self, where: kube.Collection) -> None:
        newest = self._store.newest(where.plural)
        told = await self._api.revision(where, self._namespace)
        if told < newest:
            self.found(f"{where.plural} are at version {told}, and one of version {newest} was seen before")

    def compare(self, before: Objects, listed: Objects) -> None:
        """Compare what was known before a list was asked for with what is in it."""
        for key, obj in listed.items():
            seen = before.get(key)
            if seen is None or seen["metadata"]["uid"] != obj["metadata"]["uid"]:
                continue
            if store.version(obj) < store.version(seen):
                self.found(f"{key} is at version {store.version(obj)}, and was at {store.version(seen)}")

    def took(self, where: kube.Collection, answer: kube.Object) -> None:
        """The API server answers with an object: one that was proven gone never comes back."""
        if self._store.is_buried(answer["metadata"]["uid"]):
            self.found(f"{kube.key_of(where, answer)} is there again, and was gone")
