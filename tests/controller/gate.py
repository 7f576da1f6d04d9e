"""A gate before the API server: closed, nobody reaches it, and who was connected is cut off."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import urllib.parse
from collections.abc import AsyncIterator

import yaml


class Gate:
    """Passes every connection on while it is open."""

    def __init__(self, server: str) -> None:
        there = urllib.parse.urlsplit(server)
        self._there = (there.hostname, there.port)
        self._server: asyncio.Server | None = None
        self._port = 0
        self._ends: set[asyncio.StreamWriter] = set()

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._pass, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """What comes now is refused."""
        if self._server is not None:
            self._server.close()
            self._server = None
        while self._ends:
            for end in tuple(self._ends):
                end.transport.abort()
            await asyncio.sleep(0.01)

    def through(self, kubeconfig: pathlib.Path) -> pathlib.Path:
        """The same kubeconfig by way of the gate, which was open once."""
        text = yaml.safe_load(kubeconfig.read_text())
        for cluster in text["clusters"]:
            cluster["cluster"]["server"] = f"https://127.0.0.1:{self._port}"
        path = kubeconfig.with_name(f"{kubeconfig.name}-through-the-gate")
        path.write_text(yaml.safe_dump(text))
        return path

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = {writer}
        self._ends |= ends
        there_reader, there_writer = await asyncio.open_connection(*self._there)
        ends.add(there_writer)
        self._ends |= ends
        await asyncio.gather(_copy(reader, there_writer), _copy(there_reader, writer))
        for end in ends:
            end.transport.abort()
        self._ends -= ends


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.write_eof()


@contextlib.asynccontextmanager
async def before(server: str) -> AsyncIterator[Gate]:
    """An open gate before this server; closed at the end."""
    gate = Gate(server)
    await gate.open()
    try:
        yield gate
    finally:
        await gate.close()
