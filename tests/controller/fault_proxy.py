"""A proxy before the API server that has bad days by rule: every answer that a client may ever get from one.

A user is told by the first part of the path (as behind the proxies that people put before clusters), and the proxy
speaks with that user's certificate. Requests that no rule takes pass as they are, watches event by event.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import json
import pathlib
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field

import aiohttp
import yaml
from aiohttp import web

from corral import kube

_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "content-encoding", "host"}
_HTML = "<!DOCTYPE html><html><body><h1>Welcome to the captive portal</h1></body></html>"


class Fault(enum.Enum):
    """What a rule does to a request. The last ones are done to watches, the others to everything else and to lists."""

    CONFLICT = "409"
    TOO_MANY = "429 with Retry-After"
    INTERNAL = "500"
    AWAY = "503"
    UNAUTHORIZED = "401"
    REFUSED = "403"
    GONE = "410"
    RESET = "connection reset, nothing sent"
    LOST = "took effect, connection reset"
    SWALLOWED = "took effect, no answer"
    SLOW = "slow answer"
    TRUNCATED = "truncated JSON"
    HTML = "HTML for an answer"
    BLIND = "watch goes blind"
    DEAF = "watch has bookmarks for events"
    CLOSED = "watch closed"
    EXPIRED = "watch: ERROR 410"
    BROKEN = "watch: ERROR 500"
    GARBAGE = "watch: a line that is no JSON"


OF_WATCHES = {Fault.BLIND, Fault.DEAF, Fault.CLOSED, Fault.EXPIRED, Fault.BROKEN, Fault.GARBAGE}
_STATUS = {
    Fault.CONFLICT: (409, "Conflict"),
    Fault.TOO_MANY: (429, "TooManyRequests"),
    Fault.INTERNAL: (500, "InternalError"),
    Fault.AWAY: (503, "ServiceUnavailable"),
    Fault.UNAUTHORIZED: (401, "Unauthorized"),
    Fault.REFUSED: (403, "Forbidden"),
    Fault.GONE: (410, "Expired"),
}


@dataclass(frozen=True)
class Asked:
    """One request: by whom, and for what."""

    user: str
    method: str
    path: str
    query: Mapping[str, str]
    body: bytes = b""

    def is_about(self, name: str) -> bool:
        """Whether it names this VirtualMachine, or what stands for it."""
        return name in self.path or name.encode() in self.body

    @property
    def is_watch(self) -> bool:
        return "watch" in self.query

    @property
    def is_write(self) -> bool:
        return self.method != "GET"


@dataclass
class Rule:
    """This fault, `times` times, for requests that match, after so many of them were let by."""

    fault: Fault
    matches: Callable[[Asked], bool]
    skip: int = 0
    times: int = 1
    seconds: float = 1.0
    struck: list[tuple[float, Asked]] = field(default_factory=list)
    """When, by the steady clock, and what."""

    def takes(self, asked: Asked) -> bool:
        if asked.is_watch != (self.fault in OF_WATCHES) or not self.matches(asked):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        if len(self.struck) >= self.times:
            return False
        self.struck.append((time.monotonic(), asked))
        return True


class Proxy:
    """`rules` may be exchanged at any time; the first one that takes a request has it.

    `certificates` gives the kubeconfig by which a user reaches the API server itself.
    """

    def __init__(self, folder: pathlib.Path, certificates: Callable[[str], pathlib.Path]) -> None:
        self.rules: list[Rule] = []
        self.choose: Callable[[Asked], Rule | None] = lambda _asked: None
        """Asked about each request that no rule takes."""
        self._folder = folder
        self._certificates = certificates
        self._ways: dict[str, _Way] = {}
        self._lock = asyncio.Lock()
        self._runner: web.AppRunner | None = None
        self._port = 0

    async def start(self) -> None:
        app = web.Application(client_max_size=8 << 20)
        app.router.add_route("*", "/{user}/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self._port = self._runner.addresses[0][1]

    def kubeconfig(self, user: str) -> pathlib.Path:
        """A kubeconfig by which this user comes through the proxy."""
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "proxy", "cluster": {"server": f"http://127.0.0.1:{self._port}/{user}"}}],
            "users": [{"name": user, "user": {}}],
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": user}}],
            "current-context": "proxy",
        }
        path = self._folder / f"{user.replace(':', '-')}.kubeconfig"
        path.write_text(yaml.safe_dump(content))
        return path

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
        for way in self._ways.values():
            await way.session.close()
            await way.api.close()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        user = request.match_info["user"]
        async with self._lock:
            way = self._ways.get(user) or await self._begin(user)
        passage = _Passage(request, user, await request.read(), way)
        rule = next((rule for rule in self.rules if rule.takes(passage.asked)), None)
        rule = rule or self.choose(passage.asked)
        if rule is None:
            return await passage.forward()
        if passage.asked.is_watch:
            return await passage.forward(_Disturbance(rule.fault, rule.seconds))
        return await passage.strike(rule)

    async def _begin(self, user: str) -> _Way:
        api = await kube.Kube.connect(str(self._certificates(user)), user_agent="corral-tests")
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=api.ssl_context),
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
        )
        self._ways[user] = _Way(api, session)
        return self._ways[user]


@dataclass
class _Way:
    """How a user comes to the API server itself."""

    api: kube.Kube
    session: aiohttp.ClientSession


@dataclass
class _Disturbance:
    """What becomes of one watch; for the first `seconds`, or once."""

    fault: Fault
    seconds: float
    begun: float = field(default_factory=time.monotonic)

    def line(self, line: bytes) -> bytes | None:
        """The line as it goes on, None where it does not."""
        if time.monotonic() - self.begun > self.seconds:
            return line
        if self.fault is Fault.BLIND:
            return None
        if self.fault is Fault.DEAF:
            # The client's place in the history moves on, past what it was not told.
            metadata = {"resourceVersion": json.loads(line)["object"]["metadata"]["resourceVersion"]}
            return json.dumps({"type": "BOOKMARK", "object": {"metadata": metadata}}).encode()
        return line

    @property
    def first(self) -> bytes | None:
        """What stands before the first line."""
        status: dict[str, object] = {"kind": "Status", "apiVersion": "v1", "status": "Failure"}
        if self.fault is Fault.EXPIRED:
            status |= {"reason": "Expired", "message": "too old resource version: 1 (2)", "code": 410}
        elif self.fault is Fault.BROKEN:
            status |= {"reason": "InternalError", "message": "etcdserver: no leader", "code": 500}
        elif self.fault is Fault.GARBAGE:
            return b'{"type": "MODIFIED", "object": {"kind": "Inst\n'
        else:
            return None
        return json.dumps({"type": "ERROR", "object": status}).encode() + b"\n"


class _Passage:
    """One request on its way through."""

    def __init__(self, request: web.Request, user: str, body: bytes, way: _Way) -> None:
        self.asked = Asked(user, request.method, f"/{request.match_info['path']}", dict(request.query), body)
        self._request = request
        self._way = way

    @contextlib.asynccontextmanager
    async def _answer(self) -> AsyncIterator[aiohttp.ClientResponse]:
        """The API server's own answer."""
        headers = {key: value for key, value in self._request.headers.items() if key.lower() not in _HOP_BY_HOP}
        _, _, path = self._request.raw_path.split("/", 2)
        url = f"{self._way.api.server}/{path}"
        async with self._way.session.request(
            self.asked.method, url, headers=headers, data=self.asked.body or None
        ) as answer:
            yield answer

    async def forward(self, disturbance: _Disturbance | None = None) -> web.StreamResponse:
        """Pass it on, and the answer back as it comes."""
        async with self._answer() as answer:
            response = web.StreamResponse(status=answer.status, headers=_kept(answer))
            await response.prepare(self._request)
            with contextlib.suppress(ConnectionError, aiohttp.ClientError):
                if disturbance is None:
                    async for data in answer.content.iter_any():
                        await response.write(data)
                else:
                    await self._disturbed(answer, response, disturbance)
                await response.write_eof()
            return response

    async def _disturbed(
        self, answer: aiohttp.ClientResponse, response: web.StreamResponse, disturbance: _Disturbance
    ) -> None:
        if disturbance.fault is Fault.CLOSED:
            return
        if (first := disturbance.first) is not None:
            await response.write(first)
        pending = b""
        async for data in answer.content.iter_any():
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                if (told := disturbance.line(line)) is not None:
                    await response.write(told + b"\n")

    async def strike(self, rule: Rule) -> web.StreamResponse:
        """Answer with a fault."""
        if rule.fault in _STATUS:
            return _status(*_STATUS[rule.fault])
        if rule.fault is Fault.HTML:
            return web.Response(text=_HTML, content_type="text/html")
        if rule.fault is Fault.RESET:
            return self._hang_up()
        if rule.fault is Fault.SLOW:
            await asyncio.sleep(rule.seconds)
            return await self.forward()
        async with self._answer() as answer:
            text = await answer.read()
            if rule.fault is Fault.TRUNCATED:
                return web.Response(status=answer.status, headers=_kept(answer), body=text[: len(text) // 2])
        if rule.fault is Fault.SWALLOWED:
            await asyncio.sleep(rule.seconds)
        return self._hang_up()

    def _hang_up(self) -> web.Response:
        if self._request.transport is not None:
            self._request.transport.abort()
        return web.Response()


def _kept(answer: aiohttp.ClientResponse) -> dict[str, str]:
    return {
        key: value for key, value in answer.headers.items() if key.lower() not in _HOP_BY_HOP - {"content-encoding"}
    }


def _status(code: int, reason: str) -> web.Response:
    message = f"the fault proxy says {reason}"
    body = {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "reason": reason,
        "message": message,
        "code": code,
    }
    headers = {"Retry-After": "1"} if code == 429 else {}
    return web.json_response(body, status=code, headers=headers)
