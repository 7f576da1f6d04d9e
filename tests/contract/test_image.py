"""What every implementation of `corral_drivers.image.port` does, and what the one over HTTP does beside.

The server is a real one on loopback, and as bad as a test wants it.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import hashlib
import os
import pathlib
import re
import socket
import ssl
import stat
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio

from corral_drivers import errors
from corral_drivers.image import http_cache, plan, port, simulated
from corral_drivers.image.model import Cause, Format, Held, Image, Progress
from corral_drivers.image.plan import Fetch
from corral_lab.control_plane import pki

GIB = 2**30


def qcow2(*, size: int = GIB, backing_at: int = 0, filler: bytes = b"x" * 5000) -> bytes:
    """A header of version 2, with its tables where a file of 196,608 bytes has them; then the filler."""
    cluster, entries = 2**16, -(-size // 2**29)
    tables = (entries, cluster, 2 * cluster, 1, 0, 0)
    head = struct.pack(">4sIQIIQIIQQIIQ", b"QFI\xfb", 2, backing_at, 4, 16, size, 0, *tables)
    return head.ljust(3 * cluster, b"\0") + filler


ROOT = qcow2()

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]
Failure = Callable[[Image], Awaitable[errors.DriverError]]


class Server:
    """Answers each path as it was told, and counts how often it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.asked: list[str] = []
        self.go = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._talks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._talk, "127.0.0.1", 0)

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for talk in self._talks:
            talk.cancel()
        await asyncio.gather(*self._talks, return_exceptions=True)

    def url(self, path: str) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}{path}"

    def offer(self, content: bytes, path: str, declared: Format = Format.QCOW2) -> Image:
        self.answers[path] = reply(content)
        return Image(hashlib.sha256(content).hexdigest(), self.url(path), declared)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._talks.add(task)
        try:
            request = await reader.readuntil(b"\r\n\r\n")
            path = request.split(b" ")[1].decode()
            self.asked.append(path)
            with contextlib.suppress(ConnectionError):
                await self.answers[path](writer)
                await writer.drain()
        finally:
            self._talks.discard(task)
            writer.close()

    def stalling(self, content: bytes) -> Answer:
        """Half of it, and the rest when the test says so."""

        async def answer(writer: asyncio.StreamWriter) -> None:
            writer.write(head(200, len(content)) + content[: len(content) // 2])
            await writer.drain()
            await self.go.wait()
            writer.write(content[len(content) // 2 :])

        return answer


def head(status: int, length: int | None, *more: str) -> bytes:
    lines = [f"HTTP/1.1 {status} Whatever", "Connection: close", *more]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    return "\r\n".join([*lines, "", ""]).encode()


def reply(content: bytes, *more: str, status: int = 200, length: int | None = -1) -> Answer:
    """`length` is what the server says, -1 being the truth and None nothing."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(head(status, len(content) if length == -1 else length, *more) + content)

    return answer


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "images"


@pytest.fixture
def cache(folder: pathlib.Path) -> http_cache.HttpCache:
    settings = port.Settings(str(folder), size_limit=8 * 2**20)
    return http_cache.HttpCache(settings, connect_timeout=0.3, stall_timeout=0.3)


class Rig:
    """One host's cache: makes drivers on it, as one process and its successor do; and breaks and mends the source."""

    def __init__(self, settings: port.Settings, server: Server, *, real: bool) -> None:
        self._settings = settings
        self._server = server
        self._real = real
        self._world = simulated.World()
        self._is_broken = False

    def open(self) -> port.Images:
        if self._real:
            return http_cache.HttpCache(self._settings)
        return simulated.Simulated(
            self._settings, world=self._world, size=len(ROOT), virtual_size=GIB, fail_at=lambda _: self._failure()
        )

    def offer(self, filler: bytes = b"", declared: Format = Format.QCOW2) -> Image:
        content = (
            (ROOT + filler)[len(filler) :] if declared is not Format.QCOW2 else ROOT[: -len(filler) or None] + filler
        )
        return self._server.offer(content, f"/{declared}/{filler.decode()}", declared)

    def break_source(self, image: Image) -> None:
        self._is_broken = True
        self._server.answers[image.url.removeprefix(self._server.url(""))] = reply(b"", status=503)

    def mend_source(self) -> None:
        self._is_broken = False

    def _failure(self) -> errors.DriverError | None:
        return errors.Unavailable(Cause.UNREACHABLE, "the server is away") if self._is_broken else None


@pytest_asyncio.fixture(params=["simulated", "real"])
async def rig(request: pytest.FixtureRequest, folder: pathlib.Path, server: Server) -> Rig:
    return Rig(port.Settings(str(folder)), server, real=request.param == "real")


async def converge(images: port.Images, *desired: Image) -> plan.Plan:
    steps = plan.plan(desired, await images.observe())
    for step in steps.steps:
        await images.apply(step)
    return steps


async def test_an_empty_host_holds_nothing(rig: Rig) -> None:
    assert await rig.open().observe() == ()


async def test_what_is_fetched_is_held_also_for_a_successor(rig: Rig) -> None:
    desired = [rig.offer(), rig.offer(b"second"), rig.offer(b"kernel", Format.BLOB), rig.offer(b"disk", Format.RAW)]
    await converge(rig.open(), *desired)
    held = await rig.open().observe()
    assert list(held) == sorted(held, key=lambda image: image.sha256)
    assert {(image.sha256, image.format) for image in held} == {(image.sha256, image.format) for image in desired}
    assert {image.size for image in held} == {len(ROOT)}
    assert {image.virtual_size for image in held if image.format is Format.QCOW2} == {GIB}
    assert {image.virtual_size for image in held if image.format is not Format.QCOW2} == {len(ROOT)}
    assert not await converge(rig.open(), *desired)


async def test_every_step_may_come_twice_and_at_once(rig: Rig) -> None:
    images = rig.open()
    step = Fetch(rig.offer())
    await asyncio.gather(*(images.apply(step) for _ in range(5)))
    held = await images.observe()
    assert len(held) == 1
    await images.apply(step)
    assert await images.observe() == held


async def test_a_fetch_that_failed_leaves_nothing_and_goes_well_once_the_source_is_mended(rig: Rig) -> None:
    images = rig.open()
    image = rig.offer()
    rig.break_source(image)
    with pytest.raises(errors.Unavailable) as caught:
        await images.apply(Fetch(image))
    assert caught.value.cause is Cause.UNREACHABLE
    assert await images.observe() == ()
    rig.mend_source()
    await images.apply(Fetch(rig.offer()))
    assert [held.sha256 for held in await images.observe()] == [image.sha256]


async def test_progress_ends_with_all_bytes(rig: Rig) -> None:
    reports: list[Progress] = []
    image = rig.offer()
    await rig.open().apply(Fetch(image), reports.append)
    assert reports[-1] == Progress(image.sha256, len(ROOT), len(ROOT))


@pytest.mark.parametrize("sha256", ["", "../../etc/passwd", "A" * 64, "a" * 63, "a" * 64 + "\n"])
async def test_a_sum_that_is_none_is_rejected(rig: Rig, sha256: str) -> None:
    with pytest.raises(errors.Rejected, match="is not a sha256") as caught:
        await rig.open().apply(Fetch(Image(sha256, "http://127.0.0.1:1/", Format.BLOB)))
    assert caught.value.cause is Cause.CHECKSUM_MISMATCH


@pytest.fixture
def failure(cache: http_cache.HttpCache, folder: pathlib.Path) -> Failure:
    """Fetches, and gives the error that it ends with; which has left nothing behind, and shows no secret of the url."""

    async def fetch(image: Image) -> errors.DriverError:
        with pytest.raises(errors.DriverError) as caught:
            await cache.apply(Fetch(image))
        assert await cache.observe() == ()
        assert list(folder.glob("*")) == []
        assert "secret" not in caught.value.message
        return caught.value

    return fetch


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 451])
async def test_a_file_that_is_not_for_us_may_still_come(failure: Failure, server: Server, status: int) -> None:
    image = server.offer(ROOT, "/root?token=secret")
    server.answers["/root?token=secret"] = reply(b"no", status=status)
    error = await failure(image)
    assert isinstance(error, errors.Unavailable)
    assert error.cause is Cause.NOT_FOUND
    assert error.message == f"can't fetch {server.url('/root')}: the server answers {status}"


@pytest.mark.parametrize("status", [500, 502, 503, 504, 408, 429, 204, 206, 304])
async def test_a_server_in_trouble_is_unreachable(failure: Failure, server: Server, status: int) -> None:
    image = server.offer(ROOT, "/root")
    server.answers["/root"] = reply(b"", status=status)
    error = await failure(image)
    assert isinstance(error, errors.Unavailable)
    assert error.cause is Cause.UNREACHABLE


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        pytest.param(reply(ROOT[:100], length=len(ROOT)), "before the whole file came", id="cut"),
        pytest.param(
            reply(b"5\r\nhello\r\n", "Transfer-Encoding: chunked", length=None), "before the whole", id="chunk"
        ),
        pytest.param(reply(b"", "Location: ftp://user:secret@x/", status=302), "no http or https url", id="to ftp"),
        pytest.param(reply(b"", "Location: http://[/", status=302), "no http or https url", id="to nonsense"),
        pytest.param(reply(b"", "Location: file:///etc/passwd", status=302), "no http or https url", id="to a file"),
        pytest.param(reply(ROOT, length=len(ROOT) + 1), "before the whole file came", id="shorter than said"),
        pytest.param(reply(ROOT, "Content-Length: 5"), "its answer is no HTTP", id="two lengths"),
        pytest.param(reply(ROOT, "Content-Length: -1", length=None), "its answer is no HTTP", id="a negative length"),
        pytest.param(reply(ROOT, f"Content-Length: {'9' * 30}", length=None), "is no HTTP", id="an absurd length"),
        pytest.param(reply(ROOT, *[f"X-{n}: {n}" for n in range(5000)]), "is no HTTP", id="a flood of headers"),
        pytest.param(reply(ROOT, f"X: {'x' * 10**6}"), "its answer is no HTTP", id="a header without end"),
        pytest.param(reply(b"", "Location: /root", status=302), "more than 5 redirects", id="in a circle"),
    ],
)
async def test_a_transfer_that_goes_wrong_is_unreachable(
    failure: Failure, server: Server, answer: Answer, why: str
) -> None:
    image = server.offer(ROOT, "/root")
    server.answers["/root"] = answer
    error = await failure(image)
    assert isinstance(error, errors.Unavailable)
    assert error.cause is Cause.UNREACHABLE
    assert why in error.message


def breaking(content: bytes, *, reset: bool = False) -> Answer:
    """It says nothing but this, and is gone."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(content)
        await writer.drain()
        if reset:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    return answer


def endless(begin: bytes, again: bytes, every: float = 0.0) -> Answer:
    """It never stops, until nobody listens."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(begin)
        while not writer.is_closing():
            writer.write(again)
            await writer.drain()
            await asyncio.sleep(every)

    return answer


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        pytest.param(breaking(b""), "closes the connection without an answer", id="says nothing"),
        pytest.param(breaking(b"SSH-2.0-OpenSSH_9.2\r\n"), "its answer is no HTTP", id="another protocol"),
        pytest.param(breaking(head(200, len(ROOT)) + ROOT[:100], reset=True), "fetch", id="reset in the middle"),
        pytest.param(endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.001), "no whole answer", id="only ever begins"),
        pytest.param(endless(b"HTTP/1.1 200 OK\r\nX: ", b"x", 0.05), "no whole answer", id="drips its headers"),
        pytest.param(endless(head(200, len(ROOT)), b"x", 0.05), r"only \d+ bytes came in 0.3 s", id="drips the file"),
        pytest.param(endless(head(200, None), b"x", 0.05), r"only \d+ bytes came", id="drips without a length"),
    ],
)
async def test_a_server_that_would_keep_us_for_ever_is_left(
    failure: Failure, server: Server, answer: Answer, why: str
) -> None:
    image = server.offer(ROOT, "/root")
    server.answers["/root"] = answer
    error = await failure(image)
    assert (type(error), error.cause) == (errors.Unavailable, Cause.UNREACHABLE)
    assert re.search(why, error.message)


async def test_a_file_without_end_is_too_large_and_takes_no_memory(failure: Failure, server: Server) -> None:
    image = server.offer(ROOT, "/root", Format.BLOB)
    part = b"x" * 2**20
    chunk = f"{len(part):x}\r\n".encode() + part + b"\r\n"
    server.answers["/root"] = endless(head(200, None, "Transfer-Encoding: chunked"), chunk)
    tracemalloc.start()
    try:
        error = await failure(image)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (type(error), error.cause) == (errors.Rejected, Cause.TOO_LARGE)
    # The server in this process has its share of it.
    assert peak < 32 * 2**20


async def test_a_certificate_that_nobody_vouches_for_is_said(failure: Failure, tmp_path: pathlib.Path) -> None:
    authority = pki.Authority(tmp_path, "strangers", datetime.datetime.now(datetime.UTC))
    pair = authority.issue("images", pki.Identity("images", served_at=("127.0.0.1",)))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair.certificate, pair.key)
    listening = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    async with listening:
        port_number = listening.sockets[0].getsockname()[1]
        error = await failure(Image("a" * 64, f"https://127.0.0.1:{port_number}/root?secret", Format.BLOB))
    assert (type(error), error.cause) == (errors.Unavailable, Cause.UNREACHABLE)
    assert error.message.endswith("its certificate is not trusted")


async def test_a_server_without_tls_is_said(failure: Failure) -> None:
    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head(400, 0))
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as listening:
        port_number = listening.sockets[0].getsockname()[1]
        error = await failure(Image("a" * 64, f"https://127.0.0.1:{port_number}/root", Format.BLOB))
    assert (type(error), error.cause) == (errors.Unavailable, Cause.UNREACHABLE)
    assert error.message.endswith("no TLS connection can be agreed on")


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/xhtml+xml"])
async def test_a_web_page_in_place_of_an_image_is_called_one(failure: Failure, server: Server, kind: str) -> None:
    page = b"<!doctype html><title>Please log in</title>"
    image = server.offer(ROOT, "/root")
    server.answers["/root"] = reply(page, f"Content-Type: {kind}")
    said = f"the server sent a web page ({kind.partition(';')[0]})"
    assert (await failure(image)).message.endswith(f"as asked for: {said}")
    whole = server.offer(page, "/page")
    server.answers["/page"] = reply(page, f"Content-Type: {kind}")
    error = await failure(whole)
    assert (type(error), error.cause) == (errors.Rejected, Cause.NOT_AN_IMAGE)
    assert error.message.endswith(f"does not begin as a qcow2 file does: {said}")


async def test_a_slow_server_that_is_not_too_slow_is_waited_for(cache: http_cache.HttpCache, server: Server) -> None:
    image = server.offer(ROOT, "/root")

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(head(200, len(ROOT)))
        for at in range(0, len(ROOT), 20_000):
            writer.write(ROOT[at : at + 20_000])
            await writer.drain()
            await asyncio.sleep(0.1)

    server.answers["/root"] = answer
    await cache.apply(Fetch(image))
    assert len(await cache.observe()) == 1


async def test_a_server_that_stalls_is_left(failure: Failure, server: Server) -> None:
    image = server.offer(ROOT, "/root")
    server.answers["/root"] = server.stalling(ROOT)
    error = await failure(image)
    assert error.cause is Cause.UNREACHABLE
    assert "no byte came for 0.3 seconds" in error.message


async def test_a_host_that_does_not_take_connections_is_left(failure: Failure) -> None:
    with contextlib.ExitStack() as sockets:
        full = sockets.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            waiting = sockets.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        error = await failure(Image("a" * 64, f"http://127.0.0.1:{full.getsockname()[1]}/", Format.BLOB))
    assert error.cause is Cause.UNREACHABLE
    assert "no connection within 0.3 seconds" in error.message


async def test_nobody_there_is_unreachable(failure: Failure) -> None:
    error = await failure(Image("a" * 64, "http://user:secret@127.0.0.1:1/root?secret", Format.BLOB))
    assert (type(error), error.cause) == (errors.Unavailable, Cause.UNREACHABLE)
    assert error.message == "can't fetch http://127.0.0.1:1/root: Connection refused"


@pytest.mark.parametrize(
    "url", ["ftp://user:secret@x/", "http://[/secret", "http://x:99999/?secret", "file:///etc/passwd"]
)
async def test_a_url_that_is_none_is_rejected(failure: Failure, url: str) -> None:
    error = await failure(Image("a" * 64, url, Format.BLOB))
    assert (type(error), error.cause) == (errors.Rejected, Cause.UNREACHABLE)


async def test_another_sum_is_rejected_with_both(failure: Failure, server: Server) -> None:
    image = server.offer(ROOT, "/root")
    server.answers["/root"] = reply(b"<html>login</html>")
    error = await failure(image)
    assert (type(error), error.cause) == (errors.Rejected, Cause.CHECKSUM_MISMATCH)
    came = hashlib.sha256(b"<html>login</html>").hexdigest()[:12]
    assert error.message.endswith(f"has the sha256 {came}… (18 bytes), not {image.sha256[:12]}… as asked for")


async def test_content_is_taken_as_it_is_and_not_unpacked(cache: http_cache.HttpCache, server: Server) -> None:
    image = server.offer(b"\x1f\x8b not really", "/kernel.gz", Format.BLOB)
    server.answers["/kernel.gz"] = reply(b"\x1f\x8b not really", "Content-Encoding: gzip")
    await cache.apply(Fetch(image))
    assert [held.sha256 for held in await cache.observe()] == [image.sha256]


@pytest.mark.parametrize("content", [b"plain text", qcow2(backing_at=104)], ids=["no qcow2", "with a backing file"])
async def test_what_is_no_image_is_rejected(failure: Failure, server: Server, content: bytes) -> None:
    error = await failure(server.offer(content, "/root"))
    assert (type(error), error.cause) == (errors.Rejected, Cause.NOT_AN_IMAGE)


@pytest.mark.parametrize("length", [-1, None], ids=["said", "found out"])
async def test_what_is_too_large_is_rejected(failure: Failure, server: Server, length: int | None) -> None:
    content = b"x" * (8 * 2**20 + 1)
    image = server.offer(content, "/root", Format.BLOB)
    server.answers["/root"] = reply(content, length=length)
    error = await failure(image)
    assert (type(error), error.cause) == (errors.Rejected, Cause.TOO_LARGE)


async def test_a_redirect_is_followed(cache: http_cache.HttpCache, server: Server) -> None:
    image = server.offer(ROOT, "/root")
    server.answers["/old"] = reply(b"", "Location: /root", status=301)
    await cache.apply(Fetch(Image(image.sha256, server.url("/old"), Format.QCOW2)))
    assert len(await cache.observe()) == 1


async def test_a_held_image_is_one_file_that_nobody_may_write(
    cache: http_cache.HttpCache, server: Server, folder: pathlib.Path
) -> None:
    image = server.offer(ROOT, "/root")
    await cache.apply(Fetch(image))
    file = folder / f"{image.sha256}.qcow2"
    assert await cache.observe() == (Held(image.sha256, Format.QCOW2, str(file), len(ROOT), GIB),)
    assert file.read_bytes() == ROOT
    assert stat.S_IMODE(file.stat().st_mode) == 0o444
    assert list(folder.iterdir()) == [file]


async def test_many_who_want_one_image_ask_for_it_once(cache: http_cache.HttpCache, server: Server) -> None:
    image = server.offer(ROOT, "/root")
    server.answers["/root"] = server.stalling(ROOT)
    reports: list[list[Progress]] = [[], [], []]
    fetches = [asyncio.create_task(cache.apply(Fetch(image), mine.append)) for mine in reports]
    await asked(server, 1)
    server.go.set()
    await asyncio.gather(*fetches)
    assert server.asked == ["/root"]
    assert {mine[-1].done for mine in reports} == {len(ROOT)}


async def test_one_sum_in_two_forms_is_two_files(cache: http_cache.HttpCache, server: Server) -> None:
    image = server.offer(ROOT, "/root")
    both = [image, Image(image.sha256, image.url, Format.BLOB)]
    await asyncio.gather(*(cache.apply(Fetch(image)) for image in both))
    assert [held.format for held in await cache.observe()] == [Format.BLOB, Format.QCOW2]


async def test_a_good_source_is_not_harmed_by_a_bad_one(cache: http_cache.HttpCache, server: Server) -> None:
    good = server.offer(ROOT, "/good")
    bad = Image(good.sha256, server.url("/bad"), Format.QCOW2)
    server.answers["/bad"] = reply(b"", status=404)
    first, second = await asyncio.gather(cache.apply(Fetch(bad)), cache.apply(Fetch(good)), return_exceptions=True)
    assert (isinstance(first, errors.Unavailable), second) == (True, None)
    assert len(await cache.observe()) == 1


async def test_a_fetch_ends_when_nobody_waits_any_more_and_not_before(
    cache: http_cache.HttpCache, server: Server, folder: pathlib.Path
) -> None:
    image = server.offer(ROOT, "/root")
    server.answers["/root"] = server.stalling(ROOT)
    first, second = (asyncio.create_task(cache.apply(Fetch(image))) for _ in range(2))
    await asked(server, 1)
    first.cancel()
    await asyncio.wait([first])
    assert not second.done()
    second.cancel()
    third = asyncio.create_task(cache.apply(Fetch(image)))
    await asyncio.wait([second])
    await asked(server, 2)
    server.go.set()
    await third
    assert [file.name for file in folder.iterdir()] == [f"{image.sha256}.qcow2"]


async def asked(server: Server, times: int) -> None:
    async with asyncio.timeout(5):
        while len(server.asked) < times:
            await asyncio.sleep(0.01)


async def test_files_of_others_are_unseen_and_stay(
    cache: http_cache.HttpCache, server: Server, folder: pathlib.Path
) -> None:
    folder.mkdir()
    foreign = [folder / name for name in ("notes.txt", f"{'a' * 64}.vmdk", f"{'A' * 64}.raw", ".cache")]
    for file in foreign:
        file.write_text("mine")
    assert await cache.observe() == ()
    await cache.apply(Fetch(server.offer(ROOT, "/root")))
    assert len(await cache.observe()) == 1
    assert [file.read_text() for file in foreign] == ["mine"] * 4


async def test_an_image_that_the_disk_has_lost_is_fetched_again(
    cache: http_cache.HttpCache, server: Server, folder: pathlib.Path
) -> None:
    image = server.offer(ROOT, "/root")
    folder.mkdir()
    (folder / f"{image.sha256}.qcow2").write_bytes(b"\0" * 5512)
    assert await cache.observe() == ()
    await converge(cache, image)
    assert [held.virtual_size for held in await cache.observe()] == [GIB]


PROGRAM = """
import asyncio, sys
from corral_drivers.image import http_cache, model, plan, port
image = model.Image(sys.argv[2], sys.argv[3], model.Format.QCOW2)
asyncio.run(http_cache.HttpCache(port.Settings(sys.argv[1])).apply(plan.Fetch(image)))
"""


async def test_another_process_at_the_same_sum_is_waited_for_and_when_killed_cleared_away(
    cache: http_cache.HttpCache, server: Server, folder: pathlib.Path
) -> None:
    image = server.offer(ROOT, "/root")
    other = server.offer(qcow2(size=512), "/other")
    server.answers["/root"] = server.stalling(ROOT)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, str(folder), image.sha256, image.url,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    try:
        await asked(server, 1)
        with pytest.raises(errors.NotReady, match="another process is fetching it") as caught:
            await cache.apply(Fetch(image))
        assert caught.value.cause is Cause.FETCHING
        await cache.apply(Fetch(other))
        assert f".fetch-{image.sha256}" in os.listdir(folder)
    finally:
        process.kill()
        await process.wait()
    server.go.set()
    await cache.apply(Fetch(image))
    assert sorted(os.listdir(folder)) == sorted([f"{image.sha256}.qcow2", f"{other.sha256}.qcow2"])


async def test_what_a_killed_fetch_left_goes_with_the_next_fetch_of_any_image(
    cache: http_cache.HttpCache, server: Server, folder: pathlib.Path
) -> None:
    folder.mkdir()
    (folder / f".fetch-{'a' * 64}").write_bytes(b"half")
    image = server.offer(ROOT, "/root")
    await cache.apply(Fetch(image))
    assert os.listdir(folder) == [f"{image.sha256}.qcow2"]


async def test_reports_come_at_most_twice_a_second(cache: http_cache.HttpCache, server: Server) -> None:
    content = os.urandom(7 * 2**20)
    reports: list[Progress] = []
    await cache.apply(Fetch(server.offer(content, "/root", Format.BLOB)), reports.append)
    assert [report.total for report in reports] == [len(content)] * len(reports)
    assert 2 <= len(reports) <= 4


@pytest.mark.lab
async def test_a_full_disk_is_said_and_nothing_half_is_left(
    failure: Failure, server: Server, folder: pathlib.Path
) -> None:
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "corral-test", str(folder)], check=True)
    try:
        error = await failure(server.offer(b"x" * 2**21, "/root", Format.BLOB))
        assert (type(error), error.cause) == (errors.Unavailable, Cause.NO_SPACE)
    finally:
        subprocess.run(["umount", str(folder)], check=True)
