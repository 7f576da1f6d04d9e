"""The keyed queue: every change of the world becomes a key here, and every key one call of `reconcile` at a time.

Kopf delivers events and retries nothing; this is where retries, order, bounds and time live. Who adds a key never says
why: `reconcile` looks at the world again.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import structlog

KeyT = TypeVar("KeyT")

log = structlog.get_logger(__name__)

Ended = Callable[[KeyT, str, float], None]
"""Called when a pass over a key ends: what came of it (done, again, failed, late, defect), and how many seconds on."""


def _nobody(_key: object, _outcome: str, _seconds: float) -> None:
    """Who has no use for it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How many keys at once, how long one may take, and how failures are spaced, in seconds."""

    workers: int = 16
    deadline: float = 120.0
    first_delay: float = 0.2
    longest_delay: float = 60.0


@dataclass(slots=True)
class _Entry:
    """What is known of a key that waits for its time or failed before."""

    failures: int = 0
    timer: asyncio.TimerHandle | None = None
    due: float = field(default=float("inf"))


class Queue(Generic[KeyT]):
    """Keys to reconcile: each at most once at a time, and again if it was added while it ran.

    `reconcile(key)` returns in how many seconds to look again, or None; a raised exception is logged once and
    the key is tried again with growing, jittered delays. `expected` are the exceptions whose trace tells nobody
    anything.
    """

    def __init__(
        self,
        reconcile: Callable[[KeyT], Awaitable[float | None]],
        settings: Settings,
        *,
        expected: tuple[type[Exception], ...] = (),
        spread: Callable[[], float] = random.random,
        ended: Ended[KeyT] = _nobody,
    ) -> None:
        self._reconcile = reconcile
        self._settings = settings
        self._expected = expected
        self._spread = spread
        self._ended = ended
        self._ready: OrderedDict[KeyT, float] = OrderedDict()
        """Since when each waits, by the loop's clock."""
        self._running: set[KeyT] = set()
        self._again: set[KeyT] = set()
        self._entries: dict[KeyT, _Entry] = {}
        self._work = asyncio.Semaphore(0)
        self._idle = asyncio.Event()
        self._idle.set()

    def add(self, key: KeyT, after: float = 0.0) -> None:
        """Reconcile this key, at once or in `after` seconds; of several times the earliest counts."""
        if after > 0:
            self._add_later(key, after)
            return
        self._cancel_timer(key)
        if key in self._running:
            self._again.add(key)
        elif key not in self._ready:
            self._ready[key] = asyncio.get_running_loop().time()
            self._idle.clear()
            self._work.release()

    async def run(self) -> None:
        """Work until cancelled; what runs then is cancelled with it, and what waits is forgotten."""
        try:
            async with asyncio.TaskGroup() as workers:
                for _ in range(self._settings.workers):
                    workers.create_task(self._worker())
        finally:
            for key in list(self._entries):
                self._cancel_timer(key)

    async def idle(self) -> None:
        """Wait until nothing is ready or running; what waits for its time does not count."""
        await self._idle.wait()

    @property
    def depth(self) -> int:
        """How many keys are ready or running."""
        return len(self._ready) + len(self._running)

    @property
    def oldest(self) -> float:
        """For how many seconds the first ready key waits for a worker; 0 where none does."""
        since = next(iter(self._ready.values()), None)
        return 0.0 if since is None else asyncio.get_running_loop().time() - since

    async def _worker(self) -> None:
        while True:
            await self._work.acquire()
            key, _ = self._ready.popitem(last=False)
            self._running.add(key)
            try:
                await self._one(key)
            finally:
                self._running.discard(key)
                if key in self._again:
                    self._again.discard(key)
                    self.add(key)
                if not self._ready and not self._running:
                    self._idle.set()

    async def _one(self, key: KeyT) -> None:
        begun = asyncio.get_running_loop().time()
        outcome = "failed"
        try:
            async with asyncio.timeout(self._settings.deadline):
                after = await self._reconcile(key)
        except TimeoutError:
            outcome = "late"
            self._failed(key, "took longer than its deadline", trace=False)
        except self._expected as error:
            self._failed(key, str(error), trace=False)
        except Exception as error:  # a defect in one object's path must not end the work on all others
            outcome = "defect"
            self._failed(key, str(error), trace=True)
        else:
            entry = self._entries.get(key)
            if entry is not None:
                entry.failures = 0
                if entry.timer is None:
                    del self._entries[key]
            outcome = "done" if after is None else "again"
            if after is not None:
                self.add(key, max(after, 0.01))
        self._ended(key, outcome, asyncio.get_running_loop().time() - begun)

    def _failed(self, key: KeyT, why: str, *, trace: bool) -> None:
        entry = self._entries.setdefault(key, _Entry())
        entry.failures += 1
        delay = min(self._settings.first_delay * 2.0 ** (entry.failures - 1), self._settings.longest_delay)
        delay *= 0.5 + self._spread() / 2
        log.warning("reconcile failed", key=str(key), why=why, failures=entry.failures, again_in=round(delay, 2))
        if trace:
            log.exception("an error that nobody foresaw: please report it", key=str(key))
        self.add(key, delay)

    def _add_later(self, key: KeyT, after: float) -> None:
        loop = asyncio.get_running_loop()
        entry = self._entries.setdefault(key, _Entry())
        due = loop.time() + after
        if entry.due <= due:
            return
        if entry.timer is not None:
            entry.timer.cancel()
        entry.due = due
        entry.timer = loop.call_later(after, self._due, key)

    def _due(self, key: KeyT) -> None:
        self._cancel_timer(key)
        self.add(key)

    def _cancel_timer(self, key: KeyT) -> None:
        entry = self._entries.get(key)
        if entry is None:
            return
        if entry.timer is not None:
            entry.timer.cancel()
        entry.timer, entry.due = None, float("inf")
        if entry.failures == 0:
            with contextlib.suppress(KeyError):
                del self._entries[key]
