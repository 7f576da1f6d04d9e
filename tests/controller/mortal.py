"""Processes that end at one chosen call to the outside, for tests of what the next one makes of the rest.

A `Life` is one process from its start to its death. It sees every call: requests to the API, what is asked of the rooms
of a host, changes of files. At the one that its `Point` names it ends, as SIGKILL ends a process: nothing handles that,
and whatever the process still tries comes to nothing. The code of the process knows nothing of it.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import enum
import inspect
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from corral import kube
from corral.agent import rooms

AnswerT = TypeVar("AnswerT")

_FILES = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod"}
"""The audit events (docs.python.org/3/library/audit_events.html) of what changes files, and of what may."""

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_ASKS = ("observe", "owners", "facts", "capacity", "watch", "sessions", "announced")
"""How the methods of a room begin that change nothing."""


class Killed(BaseException):
    """What SIGKILL is to a process: nothing handles it."""


class Moment(enum.Enum):
    """What becomes of the chosen call. A question has no effect to die after, and only a request has an answer."""

    BEFORE = "before"
    AFTER = "after"
    UNANSWERED = "unanswered"


@dataclass(frozen=True, slots=True)
class Point:
    """The `number`-th of those calls that its moment can befall, from 1."""

    moment: Moment
    number: int


@dataclass(frozen=True, slots=True)
class Call:
    """One call to the outside: what kind, and which moments can befall it; none of what has its own time."""

    kind: str
    moments: frozenset[Moment]


class Life:
    """One life of a process, which ends at `point`, counted from its birth or from when it is armed."""

    def __init__(self, point: Point | None = None) -> None:
        self.is_dead = False
        self.is_over = False
        """Whether the process is being cleared away: what it still tries on the way is refused."""

        self.struck = ""
        """The kind of the call that fate struck; empty where it has not."""

        self._lock = threading.Lock()
        self._counts: collections.Counter[Moment] = collections.Counter()
        self._point = point
        self._under_way = 0
        self._last = float("inf")

    def arm(self, point: Point | None) -> None:
        """Count anew, and end at this point; at none where it is None."""
        with self._lock:
            self._counts.clear()
            self._point = point
            self.struck = ""

    def end(self) -> None:
        """Nothing that the process does has an effect from here on."""
        self.is_dead = self.is_over = True

    def is_quiet(self, seconds: float) -> bool:
        """Whether it has called, and for so long nothing more."""
        return not self._under_way and self._last + seconds < time.monotonic()

    async def call(self, call: Call, work: Callable[[], Awaitable[AnswerT]]) -> AnswerT:
        """Let the process do this, as far as it lives. Raises what the work raises, and `Killed` once it is over."""
        try:
            return await self._call(call, work)
        except Killed:
            if not self.is_over:
                # The process stands still where it died, until it is cleared away.
                await asyncio.Future()
            raise

    async def _call(self, call: Call, work: Callable[[], Awaitable[AnswerT]]) -> AnswerT:
        self.before(call)
        counts = 1 if call.moments else 0
        self._under_way += counts
        try:
            answer = await work()
        finally:
            self._under_way -= counts
            if counts:
                self._last = time.monotonic()
        self._after(call)
        return answer

    def before(self, call: Call) -> None:
        """The process is about to do this. Raises `Killed`."""
        self.check()
        if call.moments:
            self._last = time.monotonic()
        if self._is_struck(call, Moment.BEFORE):
            self._die()

    def check(self) -> None:
        """Raises `Killed` where the process is dead."""
        if self.is_dead:
            raise Killed

    def _after(self, call: Call) -> None:
        self.check()
        if self._is_struck(call, Moment.AFTER):
            self._die()
        if self._is_struck(call, Moment.UNANSWERED):
            raise kube.ApiUnavailable(call.kind, "its answer was lost")

    def _is_struck(self, call: Call, moment: Moment) -> bool:
        if moment not in call.moments:
            return False
        with self._lock:
            self._counts[moment] += 1
            if self._point != Point(moment, self._counts[moment]):
                return False
            self.struck = call.kind
        return True

    def _die(self) -> None:
        self.is_dead = True
        raise Killed


_QUESTION = frozenset({Moment.BEFORE})
_CHANGE = frozenset({Moment.BEFORE, Moment.AFTER})
_REQUEST = frozenset(Moment)


class Api(kube.Kube):
    """A connection to the API whose requests count, but for the signs of life, which have their own time."""

    life: Life

    @classmethod
    async def of(cls, life: Life, kubeconfig: str | None, user_agent: str) -> Api:
        """The connection of this life."""
        api = await cls.connect(kubeconfig, user_agent=user_agent)
        api.life = life
        return api

    async def _request(self, method: str, path: str, **rest: Any) -> kube.Object:
        what, resource = kind(method, path)
        moments = _QUESTION if method == "GET" else _REQUEST
        call = Call(what, frozenset() if resource == kube.LEASES.plural else moments)
        return await self.life.call(call, lambda: super(Api, self)._request(method, path, **rest))


def kind(method: str, path: str) -> tuple[str, str]:
    """The kind of a request, and its resource, by its path."""
    parts = path.split("/")[3 if path.startswith("/api/") else 4 :]
    if parts[0] == "namespaces" and len(parts) > 2:
        parts = parts[2:]
    verb = "LIST" if method == "GET" and len(parts) == 1 else method
    return " ".join([verb, "/".join([parts[0], *parts[2:]])]), parts[0]


def counted(made: rooms.Rooms, life: Life) -> rooms.Rooms:
    """The rooms, every question and every step of which counts."""
    names = [field.name for field in dataclasses.fields(made)]
    return rooms.Rooms(**{name: _Room(name, getattr(made, name), life) for name in names})


class _Room:
    """A room of a host, seen from a process that may die at any of its methods."""

    def __init__(self, name: str, room: object, life: Life) -> None:
        self._name = name
        self._room = room
        self._life = life

    def __getattr__(self, method: str) -> Any:
        found = getattr(self._room, method)
        if method == "close" or not inspect.iscoroutinefunction(found):
            return found

        async def call(*arguments: Any, **named: Any) -> Any:
            what = type(arguments[0]).__name__ if method == "apply" else method
            moments = _QUESTION if method.startswith(_ASKS) else _CHANGE
            return await self._life.call(Call(f"{self._name} {what}", moments), lambda: found(*arguments, **named))

        return call


_FOLDERS: dict[str, Life] = {}


@contextmanager
def files(folder: str, life: Life) -> Iterator[None]:
    """Meanwhile, count what is changed below this folder. What is after one change is before the next call."""
    _listen()
    _FOLDERS[f"{folder}/"] = life
    try:
        yield
    finally:
        if _FOLDERS.get(f"{folder}/") is life:
            del _FOLDERS[f"{folder}/"]


_LISTENING: list[bool] = []


def _listen() -> None:
    # Python has no way to take one off again: there is one, and it has nothing to do once nobody is registered.
    if not _LISTENING:
        _LISTENING.append(True)
        sys.addaudithook(_heard)


def _heard(event: str, arguments: tuple[Any, ...]) -> None:
    if not _FOLDERS or event not in _FILES or not isinstance(arguments[0], str | os.PathLike):
        return
    if event == "open" and not arguments[2] & _WRITING:
        return
    path = os.fspath(arguments[0])
    for folder, life in _FOLDERS.items():
        if isinstance(path, str) and path.startswith(folder):
            below = path.removeprefix(folder).partition("/")[0]
            life.before(Call(f"{event.removeprefix('os.')} {below}", _QUESTION))
