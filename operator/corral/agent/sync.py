"""What keeps the agent's picture of its namespace true: the first list, events, periodic looks, and the sweep.

Events wake at once; but a watch can go blind, and a relist tells of no deletion. So everything is looked at anew every
half minute, and every ten minutes a list of our own says what the store has missed.
"""

from __future__ import annotations

from collections.abc import Iterable

import structlog

from corral import history, kube, queue, store
from corral.agent import desired
from corral.agent.host import HOST_STATES
from corral.agent.instance import INSTANCES, OWNER

GATHERED_FOR = 0.05
"""Seconds between a change on the host and the pass that it asks for: one change is told in several events."""

log = structlog.get_logger(__name__)


class Sync:
    """The picture of one namespace, and whom to wake. `report` is the key of the host's HostState."""

    def __init__(
        self,
        api: kube.Kube,
        known: store.Store,
        seen: history.History,
        wake: queue.Queue[kube.Key],
        report: kube.Key,
    ) -> None:
        self._api = api
        self._store = known
        self._history = seen
        self._queue = wake
        self._namespace = report.namespace
        self._report = report
        self._owners: dict[str, str] = {}
        known.listen(self._took)

    async def fill(self) -> None:
        """Take in everything there is. Until this is done, nothing is known to be an orphan.

        The HostState comes last: with it reports begin, and they must know of every Instance.
        """
        listed = set[kube.Key]()
        for where in (INSTANCES, HOST_STATES):
            async for page in self._api.pages(where, self._namespace):
                for obj in page:
                    self._store.put(where, obj)
                    listed.add(kube.key_of(where, obj))
        for key, _ in self._store.all(INSTANCES.plural):
            if key not in listed:
                self._store.doubt(key)

    def take_up(self, kept: Iterable[kube.Object]) -> None:
        """Go by these Instances until the API server can be asked: whatever it says is newer."""
        for obj in kept:
            self._store.put(INSTANCES, obj)

    def deliver(self, where: kube.Collection, event: str | None, obj: kube.Object) -> None:
        """Take in an event of the watch."""
        key = kube.key_of(where, obj)
        if event == "DELETED":
            # Said, not proven: whoever acts on it asks first.
            self._store.doubt(key)
            self._queue.add(key)
        else:
            self._take(where, key, obj)

    def changed(self, owner: str) -> None:
        """Something of this owner changed on the host."""
        for obj in self._store.by(INSTANCES.plural, OWNER, owner):
            self._queue.add(kube.key_of(INSTANCES, obj))
        self._queue.add(self._report)

    def touched(self, owner: str) -> None:
        """Somebody touched a thing of this owner on the host; whoever it was, it is looked at once for a while."""
        for obj in self._store.by(INSTANCES.plural, OWNER, owner):
            self._queue.add(kube.key_of(INSTANCES, obj), GATHERED_FOR)
        self._queue.add(self._report, GATHERED_FOR)

    def touched_over(self, interface: str) -> None:
        """Somebody touched what leads over this interface, or (no name) what the host has for itself.

        Nothing where it is no guest's.
        """
        if not interface:
            self._queue.add(self._report, GATHERED_FOR)
        if owner := self._owners.get(interface):
            self.touched(owner)

    def _took(self, key: kube.Key, old: kube.Object | None, new: kube.Object | None) -> None:
        """Keep in mind whose an interface is."""
        if key.plural == INSTANCES.plural:
            for tap in _taps(old):
                self._owners.pop(tap, None)
            self._owners |= dict.fromkeys(_taps(new), "" if new is None else new["spec"]["owner"]["uid"])

    def look(self) -> None:
        """Have everything looked at anew."""
        for where in (INSTANCES, HOST_STATES):
            for key, _ in self._store.all(where.plural):
                self._queue.add(key)

    async def sweep(self) -> None:
        """Compare the store with a list, and have what differs read anew. Raises `kube.ApiError`."""
        before = dict(self._store.all(INSTANCES.plural))
        listed: dict[kube.Key, kube.Object] = {}
        async for page in self._api.pages(INSTANCES, self._namespace, metadata_only=True):
            listed |= {kube.key_of(INSTANCES, obj): obj for obj in page}
        self._history.compare(before, listed)
        missed = [key for key in before if key not in listed]
        for key in missed:
            self._store.doubt(key)
            self._queue.add(key)
        for key, obj in listed.items():
            held = self._store.get(key)
            if held is None or store.version(held) < store.version(obj):
                missed.append(key)
                await self._read(key)
        log.info("swept", instances=len(listed), missed=len(missed))

    async def _read(self, key: kube.Key) -> None:
        obj = await self._api.get(INSTANCES, key.namespace, key.name)
        if obj is None:
            return
        self._history.took(INSTANCES, obj)
        self._take(INSTANCES, key, obj)

    def _take(self, where: kube.Collection, key: kube.Key, obj: kube.Object) -> None:
        is_new = where == INSTANCES and self._store.get(key) is None
        if self._store.put(where, obj):
            self._queue.add(key)
            if is_new and self._is_orphan(obj["spec"]["owner"]["uid"]):
                self._queue.add(self._report)

    def _is_orphan(self, owner: str) -> bool:
        """Whether the last report says so."""
        state = self._store.get(self._report)
        told = () if state is None else state.get("status", {}).get("orphans", ())
        return any(one["uid"] == owner for one in told)


def _taps(obj: kube.Object | None) -> list[str]:
    """The taps of an Instance, which need not be understood otherwise."""
    if obj is None:
        return []
    owner = obj["spec"]["owner"]["uid"]
    return [desired.tap_name(owner, nic["name"]) for nic in obj["spec"].get("interfaces", [])]
