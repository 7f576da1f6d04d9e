"""The rooms of a host with every call counted and timed: `agent.process` puts it around what `agent.rooms` builds.

The drivers know nothing of it, and a method that a port gets later is counted by itself.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

from corral import metrics
from corral.agent.rooms import Rooms
from corral_drivers import errors

PortT = TypeVar("PortT")

_WORDS = ((errors.NotReady, "not-ready"), (errors.Unavailable, "unavailable"), (errors.Rejected, "rejected"))


def rooms(made: Rooms, counted: metrics.Metrics) -> Rooms:
    """The same rooms; who calls them is counted by room, call and outcome."""
    return Rooms(
        hypervisor=_measured("hypervisor", made.hypervisor, counted),
        images=_measured("image", made.images, counted),
        storage=_measured("storage", made.storage, counted),
        seeds=_measured("seed", made.seeds, counted),
        links=_measured("link", made.links, counted),
        routing=_measured("routing", made.routing, counted),
        bgp=_measured("bgp", made.bgp, counted),
        firewall=_measured("firewall", made.firewall, counted),
        dhcp=_measured("dhcp", made.dhcp, counted),
    )


def _measured(room: str, port: PortT, counted: metrics.Metrics) -> PortT:
    # It answers to every name that the port does.
    return cast("PortT", _Measured(room, port, counted))


class _Measured:
    def __init__(self, room: str, port: object, counted: metrics.Metrics) -> None:
        self._room = room
        self._port = port
        self._counted = counted

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._port, name)
        if not inspect.iscoroutinefunction(found):
            return found
        timed = self._timed(name, found)
        # Found at once the next time.
        setattr(self, name, timed)
        return timed

    def _timed(self, name: str, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        @functools.wraps(call)
        async def timed(*arguments: Any, **options: Any) -> Any:
            begun, outcome = time.monotonic(), "done"
            try:
                return await call(*arguments, **options)
            except BaseException as error:
                outcome = _outcome(error)
                raise
            finally:
                # A step says more than that one was applied: which fetch or start it was that took so long.
                called = type(arguments[0]).__name__.lower() if name == "apply" else name
                self._counted.called(self._room, called, outcome, time.monotonic() - begun)

        return timed


def _outcome(error: BaseException) -> str:
    if isinstance(error, asyncio.CancelledError):
        return "cancelled"
    return next((word for kind, word in _WORDS if isinstance(error, kind)), "defect")
