"""A conversation with one of FRR's daemons on its own socket, `<folder>/<daemon>.vty`, as vtysh has them.

A command ends with a zero octet; the answer is its text, three zero octets, and one with the outcome, 0 for success
(`lib/vty.c`, vtysh_read and vtysh_write). A query takes 0.1 ms, against 26 ms for starting vtysh.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from corral_drivers import errors
from corral_drivers.bgp.model import Cause

_CHUNK = 65536
_LONGEST = 64 * 1024 * 1024
_END = b"\0\0\0"


@dataclass(frozen=True, slots=True)
class Line:
    """Where a daemon is spoken to, and how many seconds it has for each answer."""

    folder: str
    daemon: str
    within: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What a daemon says to one command. A statement that it has already may be not done, without a word."""

    done: bool
    text: str


class Vty:
    """One conversation, in which everything may be asked and changed."""

    def __init__(self, line: Line, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._daemon = line.daemon
        self._within = line.within
        self._reader = reader
        self._writer = writer

    async def run(self, command: str) -> Answer:
        """Say one command. Raises `errors.Unavailable` where no answer comes."""
        try:
            async with asyncio.timeout(self._within):
                self._writer.write(command.encode() + b"\0")
                await self._writer.drain()
                return await self._answer()
        except TimeoutError as error:
            raise errors.Unavailable(
                Cause.NOT_ANSWERING, f"{self._daemon} has not answered {command!r} for {self._within:g} s"
            ) from error
        except OSError as error:
            raise self._ended(command) from error

    async def ask(self, command: str) -> str:
        """The text of the answer. Raises `errors.Unavailable` also where the daemon does not do it."""
        answer = await self.run(command)
        if not answer.done:
            raise errors.Unavailable(Cause.FAILED, f"{self._daemon} refuses {command!r}: {answer.text.strip()}")
        return answer.text

    async def _answer(self) -> Answer:
        said = bytearray()
        while said[-4:-1] != _END:
            chunk = await self._reader.read(_CHUNK)
            if not chunk or len(said) > _LONGEST:
                raise ConnectionError
            said += chunk
        return Answer(done=said[-1] == 0, text=said[:-4].decode(errors="replace"))

    def _ended(self, command: str) -> errors.Unavailable:
        return errors.Unavailable(Cause.NOT_ANSWERING, f"{self._daemon} ended while it was asked {command!r}")


@contextlib.asynccontextmanager
async def conversation(line: Line) -> AsyncIterator[Vty]:
    """Speak with a daemon, and hang up. Raises `errors.Unavailable` where it is not there."""
    daemon, path = line.daemon, f"{line.folder}/{line.daemon}.vty"
    try:
        async with asyncio.timeout(line.within):
            reader, writer = await asyncio.open_unix_connection(path, limit=2 * _CHUNK)
    except TimeoutError as error:
        raise errors.Unavailable(Cause.NOT_ANSWERING, f"{daemon} takes no call on {path}") from error
    except OSError as error:
        raise errors.Unavailable(
            Cause.NOT_RUNNING, f"{daemon} does not run: nobody answers on {path} ({error.strerror or error})"
        ) from error
    try:
        vty = Vty(line, reader, writer)
        await vty.ask("enable")
        yield vty
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
