"""Answers by two packet sockets in the agent's own event loop; the composition root makes one a host.

What is answered is kept as `<folder>/<owner>.json`, and that name is all a restarted process needs: the folder is ours,
files of other names in it are not. A new process reads them before it does anything else, so that it answers whoever
asks within a moment of its start, whether an API server answers or not. Leases are for ever, so that nobody else is
kept waiting by a restart. A file comes to its name by a rename; one that a crash left empty says nothing, and is
written anew by its owner's next pass.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import pathlib
from collections.abc import Callable
from typing import TypeVar

from corral_drivers import errors, inotify
from corral_drivers.dhcp import kept, names, respond, table
from corral_drivers.dhcp.model import Cause, Service
from corral_drivers.dhcp.plan import Serve, Step
from corral_drivers.dhcp.port import Settings
from corral_drivers.dhcp.sockets import Sockets

_SUFFIX = ".json"
_FORBIDDEN = frozenset({errno.EPERM, errno.EACCES, errno.EAFNOSUPPORT})
_ADVERTISED_AT_ONCE = 100
_TURN = 1.0
"""Seconds between two looks at who is due for an advertisement, of at most so many each."""

ResultT = TypeVar("ResultT")


class Responder:
    """The real answers of one host, in the network namespace of the event loop's thread."""

    def __init__(self, settings: Settings) -> None:
        self._folder = pathlib.Path(settings.folder)
        self._gateway = settings.answering
        self._every = settings.advertise_every
        self._muted_for = settings.muted_for
        self._watches = inotify.Watches()
        self._table = table.Table()
        self._due: dict[str, float] = {}
        """When each interface is to be sent an advertisement that nobody asked for."""

        self._sockets: Sockets | None = None
        self._turn: asyncio.TimerHandle | None = None
        self._beginning = asyncio.Lock()

    async def prepare(self) -> None:
        async with self._beginning:
            if self._sockets is not None:
                return
            services = await _in_thread("read what guests are answered", self._read_all)
            try:
                self._sockets = Sockets(self._answer, self._muted_for)
            except OSError as error:
                cause = Cause.UNSUPPORTED if error.errno in _FORBIDDEN else Cause.FAILED
                raise errors.Unavailable(cause, f"can't hear guests that ask: {error.strerror}") from error
            for service in services:
                # Two that claim one interface are their owners' next passes' to tell.
                with contextlib.suppress(errors.Rejected):
                    self._serve(service)
            self._advertise()

    async def observe(self, owner: str) -> Service | None:
        path = self._path(owner)
        await self.prepare()
        text = await _in_thread(f"read what {owner} is answered", lambda: self._text(path))
        served = self._table.service(owner)
        return served if served is not None and text == kept.render(served) else None

    async def owners(self) -> frozenset[str]:
        return self._table.owners() | await _in_thread("list who is answered", lambda: frozenset(self._owners()))

    async def apply(self, step: Step) -> None:
        if isinstance(step, Serve):
            names.check(step.service)
            await self.prepare()
            path, text = self._path(step.service.owner), kept.render(step.service)
            self._serve(step.service)
            await _in_thread(f"keep what {step.service.owner} is answered", lambda: _write(path, text))
        else:
            path = self._path(step.owner)
            # What is kept goes first: a death in between must not bring it back after it was gone.
            await _in_thread(f"forget what {step.owner} is answered", lambda: _remove(path))
            self._silence(step.owner)

    async def watch(self, changed: Callable[[str], None], missed: Callable[[], None]) -> Callable[[], None]:
        def heard(path: pathlib.Path, _is_folder: bool) -> None:
            if path.suffix == _SUFFIX and names.is_safe(path.stem):
                changed(path.stem)

        try:
            return self._watches.add(heard, missed)
        except OSError as error:
            raise errors.Unavailable(Cause.FAILED, f"can't watch what guests are answered: {error.strerror}") from error

    async def close(self) -> None:
        async with self._beginning:
            if self._turn is not None:
                self._turn.cancel()
            if self._sockets is not None:
                self._sockets.close()
            self._turn = self._sockets = None

    def _answer(self, interface: str, frame: bytes) -> bytes | None:
        said = self._table.answer(interface)
        return None if said is None else respond.respond(said, self._gateway, frame)

    def _serve(self, service: Service) -> None:
        before = self._table.service(service.owner)
        self._table.put(service)
        for answer in () if before is None else before.answers:
            self._due.pop(answer.interface, None)
        # At once, so that a guest that is up hears of what changed.
        self._due |= {answer.interface: 0.0 for answer in service.answers if answer.ipv6}

    def _silence(self, owner: str) -> None:
        before = self._table.service(owner)
        self._table.drop(owner)
        for answer in () if before is None else before.answers:
            self._due.pop(answer.interface, None)

    def _advertise(self) -> None:
        """Send those advertisements that are due, a bounded number of them, and come back in a while."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        due = [interface for interface, when in self._due.items() if when <= now]
        for interface in due[:_ADVERTISED_AT_ONCE]:
            self._due[interface] = now + self._every
            said = self._table.answer(interface)
            frame = None if said is None else respond.advertisement(said, self._gateway)
            if frame is not None and self._sockets is not None:
                self._sockets.send(interface, frame)
        self._turn = loop.call_later(_TURN, self._advertise)

    def _read_all(self) -> list[Service]:
        found = []
        for owner in sorted(self._owners()):
            # What can't be read says nothing: its owner's next pass writes it anew.
            with contextlib.suppress(ValueError):
                found.append(kept.parse(owner, self._text(self._path(owner))))
        return found

    def _text(self, path: pathlib.Path) -> str:
        self._watches.arm(self._folder, contents=True)
        try:
            return path.read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def _path(self, owner: str) -> pathlib.Path:
        names.check_owner(owner)
        return self._folder / f"{owner}{_SUFFIX}"

    def _owners(self) -> list[str]:
        try:
            with os.scandir(self._folder) as entries:
                files = [pathlib.PurePath(entry.name) for entry in entries if entry.is_file(follow_symlinks=False)]
        except FileNotFoundError:
            return []
        return [file.stem for file in files if file.suffix == _SUFFIX and names.is_safe(file.stem)]


async def _in_thread(what: str, call: Callable[[], ResultT]) -> ResultT:
    try:
        return await asyncio.to_thread(call)
    except OSError as error:
        cause = Cause.NO_SPACE if error.errno in (errno.ENOSPC, errno.EDQUOT) else Cause.FAILED
        raise errors.Unavailable(cause, f"can't {what}: {error.strerror}") from error


def _write(path: pathlib.Path, text: str) -> None:
    path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    unfinished = _unfinished(path)
    try:
        unfinished.write_text(text)
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def _remove(path: pathlib.Path) -> None:
    path.unlink(missing_ok=True)
    _unfinished(path).unlink(missing_ok=True)


def _unfinished(path: pathlib.Path) -> pathlib.Path:
    return path.with_name(f".{path.stem}.new")
