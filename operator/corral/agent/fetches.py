"""Images on their way to this host: fetched beside the passes, which ask how far they are and never wait for them.

One fetch a sum, whoever asks. What failed is remembered until it succeeds, so that every guest that waits can say why,
and tried again with growing delays; who asks for the same sum from another place is served at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import structlog

from corral.conclude import instance as conclude
from corral_drivers import errors
from corral_drivers.image import model, plan, port

SHOWN_EVERY = 5.0
"""Seconds between two messages of progress: each is a write to the API for every guest that waits."""

_FIRST_DELAY, _LONGEST_DELAY, _REJECTED_DELAY = 2.0, 120.0, 600.0

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Fetch:
    """One image that is fetched or failed, and who waits for it. `task` is None between two tries."""

    image: model.Image
    task: asyncio.Task[None] | None = None
    waiting: set[str] = field(default_factory=set)
    error: errors.DriverError | None = None
    failures: int = 0
    again_at: float = 0.0
    told: str = ""
    told_at: float = float("-inf")


class Fetches:
    """The fetches of one host. `changed(owner)` is called for each who asked, when its fetch ends well or badly."""

    def __init__(self, images: port.Images, changed: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._images = images
        self._changed = changed
        self._clock = clock
        self._fetches: dict[tuple[str, model.Format], _Fetch] = {}

    def ask(self, step: plan.Fetch, owner: str) -> conclude.Room:
        """See to it that this image comes, and say how far it is; never `holds`."""
        key = (step.image.sha256, step.image.format)
        fetch = self._fetches.setdefault(key, _Fetch(step.image))
        if fetch.task is None and (self._clock() >= fetch.again_at or fetch.image != step.image):
            if fetch.image != step.image:
                fetch = self._fetches[key] = _Fetch(step.image, waiting=fetch.waiting)
            fetch.task = asyncio.create_task(self._run(fetch, key), name=f"fetch {step.image.sha256[:12]}")
        fetch.waiting.add(owner)
        if fetch.error is not None:
            # Also while it is tried again: a reason that comes and goes at each try would tell nobody anything.
            wait = SHOWN_EVERY if fetch.task is not None else max(fetch.again_at - self._clock(), 0.01)
            return conclude.failed(fetch.error, look_again=wait)
        return conclude.Room(holds=False, reason="ImageFetching", detail=fetch.told, look_again=SHOWN_EVERY)

    def forget(self, owner: str) -> None:
        """This one waits no more. What failed and nobody waits for is no news of this host any longer."""
        for key, fetch in list(self._fetches.items()):
            fetch.waiting.discard(owner)
            if not fetch.waiting and fetch.task is None:
                del self._fetches[key]
                self._changed(owner)

    def unfinished(self) -> Iterator[tuple[model.Image, errors.DriverError | None]]:
        """Every image that was asked for and is not here yet, with why its last try failed, if one did."""
        return iter([(fetch.image, fetch.error) for fetch in self._fetches.values()])

    async def close(self) -> None:
        """Call off what is under way."""
        tasks = [fetch.task for fetch in self._fetches.values() if fetch.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, fetch: _Fetch, key: tuple[str, model.Format]) -> None:
        try:
            await self._images.apply(plan.Fetch(fetch.image), lambda progress: self._tell(fetch, progress))
        except errors.DriverError as error:
            self._failed(fetch, error)
        except Exception:
            log.exception("an error that nobody foresaw: please report it", image=fetch.image.sha256)
            self._failed(fetch, errors.Unavailable(model.Cause.FAILED, "the fetch ended with an error of Corral's own"))
        else:
            log.info("image fetched", image=fetch.image.sha256, url=model.shown(fetch.image.url))
            self._fetches.pop(key)
        finally:
            fetch.task = None
        if not fetch.waiting:
            self._fetches.pop(key, None)
        for owner in sorted(fetch.waiting):
            self._changed(owner)

    def _failed(self, fetch: _Fetch, error: errors.DriverError) -> None:
        fetch.error = error
        fetch.failures += 1
        delay = min(_FIRST_DELAY * 2.0 ** min(fetch.failures - 1, 16), _LONGEST_DELAY)
        if isinstance(error, errors.Rejected):
            delay = _REJECTED_DELAY
        fetch.again_at = self._clock() + delay
        log.warning(
            "image not fetched", image=fetch.image.sha256, cause=error.cause.value, why=error.message, again_in=delay
        )

    def _tell(self, fetch: _Fetch, progress: model.Progress) -> None:
        if self._clock() - fetch.told_at < SHOWN_EVERY:
            return
        fetch.told_at = self._clock()
        done = f"{progress.done / 2**20:.0f}"
        of = f" of {progress.total / 2**20:.0f}" if progress.total is not None else ""
        fetch.told = f"The host fetches {model.shown(fetch.image.url)}: {done}{of} MiB are here"
