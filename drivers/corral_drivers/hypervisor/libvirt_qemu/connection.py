"""The connections to one libvirtd: opened when first needed, opened again when lost, their calls off the event loop.

`driver` owns one `Connection`. libvirt's calls block, and a daemon that hangs may never answer one: each has a thread
of its own, which nobody waits for longer than it should, and a libvirt connection of its own for as long as it takes.
Where two share one and the daemon stops giving signs of life, libvirt's client loses one of them for ever, or crashes
(seen with 9.0). Events have a connection to themselves; they arrive in libvirt's thread and are passed to the asyncio
loop. All that is remembered here belongs to that loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import libvirt

from corral_drivers import errors
from corral_drivers.hypervisor.libvirt_qemu import eventloop, faults
from corral_drivers.hypervisor.model import Cause

ResultT = TypeVar("ResultT")

_AT_ONCE = 4
_FAREWELL_S = 2.0


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a daemon may be silent, in seconds.

    One that hangs misses `missed` signs of life, of which one is due every `sign_every`, and then the call fails.
    `call` is for what hangs in a daemon that still gives signs of life: past libvirt's own limits (30 s for a job, 25 s
    to kill a guest). A call that outlives it keeps its thread until libvirt lets go; with `threads` such, no other
    is begun.
    """

    opening: float = 10.0
    call: float = 60.0
    sign_every: int = 5
    missed: int = 3
    threads: int = 16


@dataclass(frozen=True, slots=True)
class Listener:
    """Who hears of a daemon; each is called on the event loop. `changed` gets a domain's uuid."""

    opened: Callable[[], None]
    lost: Callable[[], None]
    changed: Callable[[str], None]


class Connection:
    """A daemon that is always there to be called; while it isn't, calls raise `Unavailable`."""

    def __init__(self, uri: str, listener: Listener, limits: Limits | None = None) -> None:
        self._uri = uri
        self._listener = listener
        self._limits = limits or Limits()
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._idle: list[libvirt.virConnect] = []
        self._ears: _Ears | None = None
        self._openings: dict[asyncio.Future[Any], float] = {}
        self._listening: asyncio.Future[_Ears] | None = None
        self._threads: set[asyncio.Future[Any]] = set()
        self._is_closed = False
        self._loop = asyncio.get_running_loop()

    @property
    def is_choked(self) -> bool:
        """Whether so many calls never came back that no more are begun."""
        return len(self._threads) >= self._limits.threads

    async def call(self, doing: str, work: Callable[[libvirt.virConnect], ResultT]) -> ResultT:
        """Run `work` with an open connection in a thread; `doing` names operation and object in an error.

        Raises what `work` raises, and libvirt's errors as the driver's; `Unavailable` with cause `ConnectionLost` where
        the daemon doesn't answer.
        """
        async with self._turns:
            link = await self._link(doing)
            running = self._in_thread(lambda: _ask(link, doing, work))
            running.add_done_callback(lambda _: self._put_back(link))
            await asyncio.wait((running,), timeout=self._limits.call)
            if not running.done():
                raise self._silent(doing, f"gave no answer in {self._limits.call:.0f} s")
            return running.result()

    async def listen(self, doing: str) -> None:
        """Have the listener hear of every domain from now on; nothing where it does. Raises as `call` does."""
        if self._ears is not None:
            if _is_alive(self._ears.link):
                return
            self._in_thread(self._ears.end)
            self._ears = None
        if self._listening is None:
            self._listening = self._open(doing, self._listen)
            # Before anybody waits for it, so that it is taken up when they go on; and however late it comes.
            self._listening.add_done_callback(self._take_up)
        await self._answer(self._listening, doing)

    async def close(self) -> None:
        """Close every connection that is not in use; a daemon that hangs is not waited for."""
        self._is_closed = True
        ending = [self._end(link) for link in self._idle]
        if self._ears is not None:
            ending.append(self._in_thread(self._ears.end))
        self._idle.clear()
        self._ears = None
        if ending:
            await asyncio.wait(ending, timeout=_FAREWELL_S)

    async def _link(self, doing: str) -> libvirt.virConnect:
        """An open connection for the caller alone, which must put it back."""
        while True:
            while self._idle:
                link = self._idle.pop()
                if _is_alive(link):
                    return link
                self._end(link)
            opening = self._open(doing, self._connect)
            # However late it comes, and whoever waits then, somebody can use it.
            opening.add_done_callback(lambda done: None if done.exception() else self._put_back(done.result()))
            await self._answer(opening, doing)

    def _open(self, doing: str, connect: Callable[[], ResultT]) -> asyncio.Future[ResultT]:
        """Begin to open one, unless another one hangs at that already."""
        now = self._loop.time()
        if self._is_closed:
            raise errors.Unavailable(Cause.CONNECTION_LOST, f"{doing}: the driver was closed")
        if self.is_choked:
            raise self._silent(doing, f"holds {len(self._threads)} calls that it never answered")
        if any(now - begun >= self._limits.opening for begun in self._openings.values()):
            raise self._silent(doing, "takes connections and does not answer")
        opening = self._in_thread(connect)
        self._openings[opening] = now
        opening.add_done_callback(self._openings.pop)
        return opening

    async def _answer(self, opening: asyncio.Future[Any], doing: str) -> None:
        """Wait until it is open, but not for ever."""
        began = self._openings.get(opening, 0.0)
        left = began + self._limits.opening - self._loop.time()
        await asyncio.wait((opening,), timeout=max(left, 0.0))
        if not opening.done():
            raise self._silent(doing, "takes connections and does not answer")
        error = opening.exception()
        if isinstance(error, libvirt.libvirtError):
            raise faults.translate(error, doing, is_connected=False) from error
        if error is not None:
            raise error

    def _take_up(self, opening: asyncio.Future[_Ears]) -> None:
        self._listening = None
        if opening.exception() is not None:
            return
        if self._is_closed:
            self._in_thread(opening.result().end)
            return
        self._ears = opening.result()
        self._listener.opened()

    def _put_back(self, link: libvirt.virConnect) -> None:
        if self._is_closed or not _is_alive(link):
            self._end(link)
        else:
            self._idle.append(link)

    def _connect(self) -> libvirt.virConnect:
        eventloop.ensure()
        link = libvirt.open(self._uri)
        link.setKeepAlive(self._limits.sign_every, self._limits.missed)
        return link

    def _listen(self) -> _Ears:
        link = self._connect()
        link.registerCloseCallback(lambda *_: self._soon(self._listener.lost), None)
        events = link.domainEventRegisterAny(
            None,
            libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE,
            lambda _link, domain, *_: self._soon(self._listener.changed, domain.UUIDString()),
            None,
        )
        return _Ears(link, events)

    def _end(self, link: libvirt.virConnect) -> asyncio.Future[None]:
        return self._in_thread(lambda: _close(link))

    def _in_thread(self, work: Callable[[], ResultT]) -> asyncio.Future[ResultT]:
        """What `work` returns or raises, from a thread that does not keep the process from ending."""
        answer: asyncio.Future[ResultT] = self._loop.create_future()

        def run() -> None:
            try:
                result = work()
            except BaseException as error:
                self._soon(answer.set_exception, error)
            else:
                self._soon(answer.set_result, result)

        self._threads.add(answer)
        answer.add_done_callback(self._ended)
        threading.Thread(target=run, name="libvirt", daemon=True).start()
        return answer

    def _ended(self, answer: asyncio.Future[Any]) -> None:
        self._threads.discard(answer)
        # Asked for, so that asyncio does not complain of an error that nobody waited for.
        answer.exception()

    def _soon(self, callback: Callable[..., None], *arguments: object) -> None:
        # The loop may have ended before libvirt's thread hears of it.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(callback, *arguments)

    def _silent(self, doing: str, what: str) -> errors.Unavailable:
        return errors.Unavailable(Cause.CONNECTION_LOST, f"{doing}: libvirt at {self._uri} {what}")


@dataclass(frozen=True, slots=True)
class _Ears:
    """The connection that events come by, and the number of the subscription to them."""

    link: libvirt.virConnect
    events: int

    def end(self) -> None:
        """Take the callbacks off first: they hold the connection, which ends with its last holder. May block."""
        for part in (
            lambda: self.link.domainEventDeregisterAny(self.events),
            self.link.unregisterCloseCallback,
            self.link.close,
        ):
            # On a dead connection each of them fails, and has freed what is on our side.
            with contextlib.suppress(libvirt.libvirtError):
                part()


def _ask(link: libvirt.virConnect, doing: str, work: Callable[[libvirt.virConnect], ResultT]) -> ResultT:
    try:
        return work(link)
    except libvirt.libvirtError as error:
        raise faults.translate(error, doing, is_connected=_is_alive(link)) from error


def _is_alive(link: libvirt.virConnect) -> bool:
    """As libvirt's client knows, without asking its daemon."""
    try:
        return bool(link.isAlive())
    except libvirt.libvirtError:
        return False


def _close(link: libvirt.virConnect) -> None:
    with contextlib.suppress(libvirt.libvirtError):
        link.close()
