"""The real image cache: a folder that is filled over HTTP; the composition root makes one a host.

Nothing is remembered: `folder` tells what is ours by its name, so that a restarted process sees every image that was
whole, and the first fetch removes what dead ones left. See `folder` for the names.

Which error a server earns: no answer, 5xx, 408 and 429 are Unavailable with UNREACHABLE; every other 4xx is Unavailable
with NOT_FOUND, because a file can still be put there; only what came and is not what was asked for is Rejected.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import http
import os
import pathlib
from collections.abc import Callable
from typing import TypeVar

import aiohttp

from corral_drivers import errors
from corral_drivers.image import check, flight, folder
from corral_drivers.image.model import Cause, Held, Image, Progress, shown
from corral_drivers.image.plan import Step
from corral_drivers.image.port import Settings

_CHUNK = 2**20
_REDIRECTS = 5
_REPORT_EVERY = 0.5
_SLOWEST = 4096
"""Bytes a second: who sends less, on the average of `stall_timeout`, would hold a fetch for ever."""

_WEB_PAGES = ("text/html", "application/xhtml+xml")
_TRANSIENT = (http.HTTPStatus.REQUEST_TIMEOUT, http.HTTPStatus.TOO_MANY_REQUESTS)

_WORDS: tuple[tuple[type[aiohttp.ClientError], str], ...] = (
    (aiohttp.TooManyRedirects, f"more than {_REDIRECTS} redirects"),
    (aiohttp.ClientConnectorDNSError, "its host name can't be resolved"),
    (aiohttp.ClientConnectorCertificateError, "its certificate is not trusted"),
    (aiohttp.ClientSSLError, "no TLS connection can be agreed on"),
    (aiohttp.ClientPayloadError, "the connection ended before the whole file came"),
    (aiohttp.ServerDisconnectedError, "it closes the connection without an answer"),
    (aiohttp.ClientResponseError, "its answer is no HTTP"),
)

ResultT = TypeVar("ResultT")


class HttpCache:
    """Images from HTTP servers in a folder.

    Timeouts are in seconds: to connect, and without a byte; a whole answer, redirects and all, may take both of them.
    """

    def __init__(self, settings: Settings, *, connect_timeout: float = 10.0, stall_timeout: float = 30.0) -> None:
        self._answered_within = connect_timeout + stall_timeout
        self._stall_timeout = stall_timeout
        self._folder = pathlib.Path(settings.folder)
        self._size_limit = settings.size_limit
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout, sock_read=stall_timeout)
        self._flights: dict[str, flight.Flight] = {}

    async def observe(self) -> tuple[Held, ...]:
        return await _on_disk("list the image cache", folder.held, self._folder)

    async def apply(self, step: Step, report: flight.Report | None = None) -> None:
        image = step.image
        folder.check_sum(image.sha256)
        # One writer a sum: who asks for the same sum in another form, or from elsewhere, has its turn afterwards.
        while (current := self._flights.get(image.sha256)) and not (current.is_open and current.image == image):
            await asyncio.wait([current.task])
        if current is None:
            current = self._flights[image.sha256] = flight.Flight(image, self._fetch)
            current.task.add_done_callback(lambda _: self._flights.pop(image.sha256))
        await current.join(report)

    async def _fetch(self, image: Image, report: flight.Report) -> None:
        what = f"fetch {shown(image.url)}"
        if await _on_disk(what, folder.look, self._folder, image.sha256, image.format):
            return
        partial = folder.Partial(self._folder, image.sha256)
        try:
            await _on_disk(what, partial.open)
            content_type = await self._download(image, partial, report)
            _compare(image, partial, content_type)
            _check(image, await _on_disk(what, partial.head), partial.length, content_type)
            await _on_disk(what, partial.publish, image.format)
        except BaseException:
            await _on_disk(what, partial.discard)
            raise

    async def _download(self, image: Image, partial: folder.Partial, report: flight.Report) -> str:
        """Fill the partial file; what the server says that it is."""
        url = shown(image.url)
        try:
            async with (
                aiohttp.ClientSession(timeout=self._timeout, auto_decompress=False, read_bufsize=_CHUNK) as session,
                await self._answer(session, image.url) as response,
            ):
                _check_status(response.status, url)
                self._check_size(response.content_length or 0, url)
                await self._receive(image, response, partial, report)
                return response.content_type
        except errors.DriverError:
            raise
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError) as error:
            raise _address_error(error, url) from error
        except aiohttp.ConnectionTimeoutError as error:
            raise _unreachable(url, f"no connection within {self._timeout.sock_connect:g} seconds") from error
        except aiohttp.ServerTimeoutError as error:
            raise _unreachable(url, f"no byte came for {self._timeout.sock_read:g} seconds") from error
        except TimeoutError as error:
            raise _unreachable(url, f"no whole answer came within {self._answered_within:g} seconds") from error
        except (aiohttp.ClientError, OSError) as error:
            raise _unreachable(url, _words(error)) from error

    async def _answer(self, session: aiohttp.ClientSession, url: str) -> aiohttp.ClientResponse:
        """The answer, without its body: a server may send a byte of it at a time, and redirect as it likes."""
        async with asyncio.timeout(self._answered_within):
            return await session.get(url, max_redirects=_REDIRECTS, headers={"Accept-Encoding": "identity"})

    async def _receive(
        self, image: Image, response: aiohttp.ClientResponse, partial: folder.Partial, report: flight.Report
    ) -> None:
        what = f"fetch {shown(image.url)}"
        clock = asyncio.get_running_loop().time
        due = clock()
        pace_from, had = due, 0
        async for chunk in response.content.iter_chunked(_CHUNK):
            self._check_size(partial.length + len(chunk), shown(image.url))
            await _on_disk(what, partial.write, chunk)
            if clock() >= pace_from + self._stall_timeout:
                self._check_pace(partial.length - had, shown(image.url))
                pace_from, had = clock(), partial.length
            if clock() >= due:
                report(Progress(image.sha256, partial.length, response.content_length))
                due = clock() + _REPORT_EVERY
        report(Progress(image.sha256, partial.length, response.content_length))

    def _check_pace(self, size: int, url: str) -> None:
        if size < _SLOWEST * self._stall_timeout:
            raise _unreachable(url, f"only {size} bytes came in {self._stall_timeout:g} seconds")

    def _check_size(self, size: int, url: str) -> None:
        if size > self._size_limit:
            raise errors.Rejected(
                Cause.TOO_LARGE, f"{url} has {size} bytes or more, and this host accepts {self._size_limit} at most"
            )


async def _on_disk(what: str, call: Callable[..., ResultT], *arguments: object) -> ResultT:
    """Do it in a thread, and say what the file system refused.

    It ends when the thread ends, cancelled or not: a file that is closed under a thread's write would hand its
    descriptor, and the write, to whoever opens the next one.
    """
    work = asyncio.ensure_future(asyncio.to_thread(call, *arguments))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        while not work.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([work])
        raise
    except BlockingIOError as error:
        raise errors.NotReady(Cause.FETCHING, f"can't {what} yet: another process is fetching it") from error
    except OSError as error:
        cause = Cause.NO_SPACE if error.errno in (errno.ENOSPC, errno.EDQUOT) else Cause.FAILED
        raise errors.Unavailable(cause, f"can't {what}: {error.strerror}") from error


def _check_status(status: int, url: str) -> None:
    if status == http.HTTPStatus.OK:
        return
    said = f"the server answers {status}"
    if 400 <= status < 500 and status not in _TRANSIENT:
        raise errors.Unavailable(Cause.NOT_FOUND, f"can't fetch {url}: {said}")
    raise _unreachable(url, said)


def _compare(image: Image, partial: folder.Partial, content_type: str) -> None:
    if partial.sha256 != image.sha256:
        raise errors.Rejected(
            Cause.CHECKSUM_MISMATCH,
            f"{shown(image.url)} has the sha256 {partial.sha256[:12]}… ({partial.length} bytes), "
            f"not {image.sha256[:12]}… as asked for{_page(content_type)}",
        )


def _check(image: Image, head: bytes, length: int, content_type: str) -> None:
    try:
        check.virtual_size(image.format, head, length)
    except errors.Rejected as error:
        raise errors.Rejected(error.cause, f"{error.message}{_page(content_type)}") from error


def _page(content_type: str) -> str:
    return f": the server sent a web page ({content_type})" if content_type in _WEB_PAGES else ""


def _address_error(error: Exception, url: str) -> errors.DriverError:
    # A redirect is the server's doing, and a server can be mended; the url itself is the author's.
    if isinstance(error, (aiohttp.InvalidUrlRedirectClientError, aiohttp.NonHttpUrlRedirectClientError)):
        return _unreachable(url, "the server redirects to what is no http or https url")
    return errors.Rejected(Cause.UNREACHABLE, f"can't fetch {url}: it is no http or https url")


def _unreachable(url: str, why: str) -> errors.Unavailable:
    return errors.Unavailable(Cause.UNREACHABLE, f"can't fetch {url}: {why}")


def _words(error: Exception) -> str:
    """Why a transfer failed, without the url that aiohttp puts into some of its messages."""
    for kind, words in _WORDS:
        if isinstance(error, kind):
            return words
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return "the connection broke off"
