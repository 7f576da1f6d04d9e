"""Who hears of changes in a simulated world; the simulated drivers' `watch` uses it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable


class Listeners:
    """Each hears on the event loop that it listened from, in its next turn."""

    def __init__(self) -> None:
        self._listeners: list[Callable[[str], None]] = []

    def add(self, heard: Callable[[str], None]) -> Callable[[], None]:
        """Call `heard(what)` for all that is told, until what is returned is called."""
        loop = asyncio.get_running_loop()

        def soon(what: str) -> None:
            # The loop of a test that is over may be closed.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(heard, what)

        def remove() -> None:
            with contextlib.suppress(ValueError):
                self._listeners.remove(soon)

        self._listeners.append(soon)
        return remove

    def tell(self, what: str) -> None:
        """Tell everybody of it."""
        for heard in tuple(self._listeners):
            heard(what)
