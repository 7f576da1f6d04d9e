"""One fetch that several wait for; `http_cache` holds one a sum."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

from corral_drivers.image.model import Image, Progress

Report = Callable[[Progress], None]


class Flight:
    """A fetch under way. It begins at once, and is called off when the last who waited for it is cancelled."""

    def __init__(self, image: Image, fetch: Callable[[Image, Report], Coroutine[None, None, None]]) -> None:
        self.image = image
        self.task = asyncio.create_task(fetch(image, self._report), name=f"fetch {image.sha256[:12]}")
        self._reports: list[Report] = []
        self._waiting = 0
        self._called_off = False

    @property
    def is_open(self) -> bool:
        """Whether there is still something to wait for."""
        return not self._called_off and not self.task.done()

    async def join(self, report: Report | None) -> None:
        """Wait for the end, with the fetch's own error. Only of use while it `is_open`."""
        self._waiting += 1
        if report is not None:
            self._reports.append(report)
        try:
            await asyncio.shield(self.task)
        finally:
            self._waiting -= 1
            if report is not None:
                self._reports.remove(report)
            if not self._waiting and self.is_open:
                self._called_off = True
                self.task.cancel()
                await asyncio.wait([self.task])

    def _report(self, progress: Progress) -> None:
        for report in self._reports:
            report(progress)
