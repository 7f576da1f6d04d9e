"""Statuses on their way to the API server: while it is away nobody waits for it, and the log says so once.

`agent.instance` writes through it. A host is kept as it should be whether or not anybody can be told; so one write
finds out that the API server is away, and the others are put off until it is time to try again.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import structlog

from corral import kube, store

_FIRST_DELAY, _LONGEST_DELAY = 0.5, 10.0
_ANEW = 0.1

log = structlog.get_logger(__name__)


class Reports:
    """The statuses of one kind. The clock is monotonic, in seconds; `spread` is a number from 0 to 1."""

    def __init__(
        self,
        api: kube.Kube,
        known: store.Store,
        where: kube.Collection,
        clock: Callable[[], float],
        spread: Callable[[], float] = random.random,
    ) -> None:
        self._api = api
        self._store = known
        self._where = where
        self._clock = clock
        self._spread = spread
        self._failures = 0
        self._again_at = float("-inf")

    async def write(self, obj: kube.Object, status: kube.Object) -> float | None:
        """Make this the object's status.

        In how many seconds to try again where the API server is away, or to look again where somebody else wrote
        meanwhile; else None.

        Raises `kube.ApiError` where it is there and does not take it.
        """
        if not kube.merge_patch(obj.get("status", {}), status):
            return None
        if (wait := self._wait()) > 0:
            return wait
        try:
            answer = await self._api.patch_status(self._where, obj, status)
        except kube.ApiUnavailable as error:
            self._failed(error)
            return self._wait()
        if self._failures:
            self._failures = 0
            log.info("the API server takes statuses again")
        self._store.put(self._where, answer)
        return _ANEW if kube.is_overtaken(obj, answer, status) else None

    def _wait(self) -> float:
        left = self._again_at - self._clock()
        # Not all at the same moment once it is back.
        return left * (1.0 + self._spread() / 2) if left > 0 else 0.0

    def _failed(self, error: kube.ApiUnavailable) -> None:
        if self._again_at > self._clock():
            # One of those that were on their way together.
            return
        if not self._failures:
            log.warning("a status could not be written; the host is kept as it should be meanwhile", why=str(error))
        self._failures += 1
        delay = min(_FIRST_DELAY * 2.0 ** min(self._failures - 1, 16), _LONGEST_DELAY)
        self._again_at = self._clock() + delay
