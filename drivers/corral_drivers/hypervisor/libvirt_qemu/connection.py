"""One connection to libvirtd: opened when first needed, opened again when lost, its calls kept off the event loop.

`driver` owns one. libvirt's calls block, so they run in a few threads; libvirt's events arrive in its own thread and
are passed to the asyncio loop.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import libvirt

from corral_drivers import errors
from corral_drivers.hypervisor.libvirt_qemu import eventloop, faults
from corral_drivers.hypervisor.model import Cause

ResultT = TypeVar("ResultT")

_THREADS = 4
_KEEPALIVE_INTERVAL_S = 5
_KEEPALIVE_COUNT = 3
_CALL_DEADLINE_S = 120.0
"""For one call, from when a thread has it: past libvirt's own limits (30 s for a job, 25 s to kill a guest)."""


@dataclass(frozen=True, slots=True)
class Listener:
    """Who hears of a connection; each is called on the event loop. `changed` gets a domain's uuid."""

    opened: Callable[[], None]
    lost: Callable[[], None]
    changed: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class _Session:
    """An open connection and the number of its subscription to lifecycle events."""

    connection: libvirt.virConnect
    events: int

    @property
    def is_alive(self) -> bool:
        try:
            return bool(self.connection.isAlive())
        except libvirt.libvirtError:
            return False

    def end(self) -> None:
        """Take the callbacks off first: they hold the connection, which ends with its last holder."""
        for part in (
            lambda: self.connection.domainEventDeregisterAny(self.events),
            self.connection.unregisterCloseCallback,
            self.connection.close,
        ):
            # On a dead connection each of them fails, and has freed what is on our side.
            with contextlib.suppress(libvirt.libvirtError):
                part()


class Connection:
    """A connection that is always there to be called; while the daemon isn't, calls raise `Unavailable`."""

    def __init__(self, uri: str, listener: Listener) -> None:
        self._uri = uri
        self._listener = listener
        self._threads = concurrent.futures.ThreadPoolExecutor(_THREADS, thread_name_prefix="libvirt")
        self._turns = asyncio.Semaphore(_THREADS)
        self._lock = threading.Lock()
        self._session: _Session | None = None
        self._is_closed = False

    async def call(self, doing: str, work: Callable[[libvirt.virConnect], ResultT]) -> ResultT:
        """Run `work` with an open connection in a thread; `doing` names operation and object in an error.

        Raises what `work` raises, and libvirt's errors as the driver's; `Unavailable` with cause `ConnectionLost` where
        the daemon doesn't answer.
        """
        loop = asyncio.get_running_loop()
        async with self._turns:
            running = loop.run_in_executor(self._threads, self._run, loop, doing, work)
            try:
                return await asyncio.wait_for(running, _CALL_DEADLINE_S)
            except TimeoutError as error:
                sentence = f"{doing}: libvirt at {self._uri} gave no answer in {_CALL_DEADLINE_S:.0f} s"
                raise errors.Unavailable(Cause.CONNECTION_LOST, sentence) from error

    async def close(self) -> None:
        """Close the connection and let the threads end; a call that is under way gets its error."""
        self._is_closed = True
        await asyncio.to_thread(self._drop)
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _run(
        self, loop: asyncio.AbstractEventLoop, doing: str, work: Callable[[libvirt.virConnect], ResultT]
    ) -> ResultT:
        session = self._opened(loop, doing)
        try:
            return work(session.connection)
        except libvirt.libvirtError as error:
            raise faults.translate(error, doing, is_connected=session.is_alive) from error

    def _opened(self, loop: asyncio.AbstractEventLoop, doing: str) -> _Session:
        with self._lock:
            if self._is_closed:
                raise errors.Unavailable(Cause.CONNECTION_LOST, f"{doing}: the driver was closed")
            if self._session is not None and self._session.is_alive:
                return self._session
            self._end()
            try:
                self._session = self._connect(loop)
            except libvirt.libvirtError as error:
                raise faults.translate(error, doing, is_connected=False) from error
            _soon(loop, self._listener.opened)
            return self._session

    def _connect(self, loop: asyncio.AbstractEventLoop) -> _Session:
        eventloop.ensure()
        connection = libvirt.open(self._uri)
        connection.setKeepAlive(_KEEPALIVE_INTERVAL_S, _KEEPALIVE_COUNT)
        connection.registerCloseCallback(lambda *_: _soon(loop, self._listener.lost), None)
        events = connection.domainEventRegisterAny(
            None,
            libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE,
            lambda _connection, domain, *_: _soon(loop, self._listener.changed, domain.UUIDString()),
            None,
        )
        return _Session(connection, events)

    def _drop(self) -> None:
        with self._lock:
            self._end()

    def _end(self) -> None:
        if self._session is not None:
            self._session.end()
            self._session = None


def _soon(loop: asyncio.AbstractEventLoop, callback: Callable[..., None], *arguments: str) -> None:
    # The loop may have ended before libvirt's thread hears of it.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(callback, *arguments)
