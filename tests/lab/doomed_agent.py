"""The agent of a lab host as a process that kills itself at one chosen call to the outside; `test_crash` starts it.

`python -m tests.lab.doomed_agent SOCKET <the agent's own arguments>` imports everything once and then listens: each
connection is one life of an agent, in a process of its own, and says in a line of JSON where it is to end. The code of
the agent, its drivers, libvirt, the kernel and the API server are the real ones, and know nothing of it: calls are seen
by the interpreter's own profiler and audit events, in every thread, and requests by the connection to the API.

The life ends with its connection at the latest; how it ended the other end is told.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import ctypes
import json
import os
import pathlib
import re
import select
import signal
import socket
import sys
import threading
import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.controller import mortal

from corral import kube
from corral.agent import process
from corral_drivers.firewall.nft import library, netfilter
from corral_drivers.hypervisor.libvirt_qemu import driver  # noqa: F401 - what the agent loads by its entry point

_PR_SET_PDEATHSIG = 1
_CHANGES = re.compile(
    r"virDomain(Define|Create|Shutdown|Destroy|Undefine|Resume|Suspend|Attach|Detach|Update|Set|Reset)"
)
_TRANSACTION = library.Library.run.__code__
_NFNETLINK = 0x100
"""Where the numbers of messages begin that have a subsystem's in them."""

_TABLES = ("LINK", "ADDR", "ROUTE", "NEIGH")
_TAP = {0x400454CA: "TUNSETIFF", 0x400454CB: "TUNSETPERSIST"}
_CALLED = {
    "open": {"open"},
    "os.rename": {"rename", "replace"},
    "os.remove": {"remove", "unlink"},
    "os.mkdir": {"mkdir"},
    "os.rmdir": {"rmdir"},
    "os.link": {"link"},
    "os.setxattr": {"setxattr"},
    "fcntl.ioctl": {"ioctl"},
    "subprocess.Popen": {"fork_exec"},
}
"""The audit events that count, and the functions that raise them: when one of these returns, it has taken effect."""

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


@dataclass(frozen=True, slots=True)
class Order:
    """Where a life is to end: before or after the `number`-th call of this kind.

    `record`: where it lists the calls that it made, before it ends well; without, it is killed with its connection.
    """

    kind: str = ""
    number: int = 1
    moment: str = "before"
    record: str = ""


class Doom:
    """Sees every call of this process from `watch` on."""

    def __init__(self, order: Order, state: str) -> None:
        self._order = order
        self._state = f"{state}/"
        self._counts: collections.Counter[tuple[str, str]] = collections.Counter()
        self._under_way = threading.local()
        self._watches = False
        self.calls: list[str] = []

    def watch(self) -> None:
        """See to it that nothing is missed, in threads that are begun from now on and in this one."""
        self._watches = True
        sys.addaudithook(self._audit)
        threading.setprofile(self._profile)
        sys.setprofile(self._profile)

    def rest(self) -> None:
        """Look away, for good."""
        self._watches = False

    def before(self, kind: str, *, changes: bool = True) -> None:
        """A call of this kind is about to be made."""
        if not changes:
            self.calls.append(f"? {kind}")
        self._meet(kind, "before")

    def after(self, kind: str) -> None:
        """It has taken effect."""
        self.calls.append(kind)
        self._meet(kind, "after")

    def _meet(self, kind: str, moment: str) -> None:
        self._counts[kind, moment] += 1
        met = self._counts[kind, moment] == self._order.number
        if met and (kind, moment) == (self._order.kind, self._order.moment):
            os.kill(os.getpid(), signal.SIGKILL)

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._watches and event in _CALLED and (kind := self._kind(event, arguments)):
            self.before(kind)
            self._under_way.call = (_CALLED[event], kind)

    def _kind(self, event: str, arguments: tuple[Any, ...]) -> str:
        """The kind of the call that this event tells of; empty where it is none to the outside."""
        if event == "subprocess.Popen":
            return f"run {pathlib.PurePath(os.fsdecode(arguments[0])).name}"
        if event == "fcntl.ioctl":
            return _TAP.get(arguments[1], "")
        if event == "open" and not arguments[2] & _WRITING:
            return ""
        path = os.fsdecode(arguments[0]) if isinstance(arguments[0], str | bytes | os.PathLike) else ""
        if path.startswith(self._state):
            return f"{event.removeprefix('os.')} {path.removeprefix(self._state).partition('/')[0]}"
        return "open sysctl" if path.startswith("/proc/sys/") else ""

    def _profile(self, frame: types.FrameType, event: str, function: Any) -> None:
        if not self._watches:
            return
        if frame.f_code is _TRANSACTION and event in ("call", "return"):
            self._nftables(frame.f_locals["commands"], is_done=event == "return" and function is not None, event=event)
        if event not in ("c_call", "c_return", "c_exception"):
            return
        name = getattr(function, "__name__", "")
        called, kind = getattr(self._under_way, "call", ((), ""))
        if name in called and event != "c_call":
            self._under_way.call = ((), "")
            if event == "c_return":
                self.after(kind)
        elif event != "c_exception":
            self._direct(frame, event, function, name)

    def _direct(self, frame: types.FrameType, event: str, function: Any, name: str) -> None:
        """What no audit event tells of: libvirt, netlink, and writing to a file that is open."""
        changes = True
        if getattr(function, "__module__", "") == "libvirtmod":
            kind, changes = f"libvirt {name}", bool(_CHANGES.match(name))
        elif name == "send" and getattr(getattr(function, "__self__", None), "family", None) == socket.AF_NETLINK:
            kind = _message(int(frame.f_locals.get("kind", 0)))
            changes = "GET" not in kind
        elif function is os.write:
            kind = "write"
        else:
            return
        if event == "c_call":
            self.before(kind, changes=changes)
        elif changes:
            self.after(kind)

    def _nftables(self, commands: str, event: str, *, is_done: bool) -> None:
        """Nobody is told of calls by ctypes, but this is the one place that makes them; who fails returns nothing."""
        kind = f"nft {commands.partition(' ')[0]}"
        changes = kind != "nft list"
        if event == "call":
            self.before(kind, changes=changes)
        elif changes and is_done:
            self.after(kind)


def _message(number: int) -> str:
    """What rtnetlink(7) calls a message: of each table there are four. Of nfnetlink, flows are ended."""
    if number >= _NFNETLINK:
        return "netlink DELFLOW" if number == netfilter.DELETE_FLOW else "netlink GETRULES"
    table, verb = divmod(number - 16, 4)
    return f"netlink {('NEW', 'DEL', 'GET', 'SET')[verb]}{dict(enumerate(_TABLES)).get(table, table)}"


class Api(kube.Kube):
    """A connection whose requests the doom sees."""

    doom: Doom

    async def _request(self, method: str, path: str, **rest: Any) -> kube.Object:
        kind, _ = mortal.kind(method, path)
        self.doom.before(kind, changes=method != "GET")
        answer = await super()._request(method, path, **rest)
        if method != "GET":
            self.doom.after(kind)
        return answer


def _live(order: Order, arguments: argparse.Namespace) -> None:
    """Be the agent, until SIGTERM or death."""
    doom = Doom(order, arguments.state)

    async def connect(kubeconfig: str | None) -> kube.Kube:
        api = await Api.connect(kubeconfig, user_agent="corral-agent")
        api.doom = doom
        return api

    async def run() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        signal.signal(signal.SIGTERM, lambda *_: loop.call_soon_threadsafe(stop.set))
        settings = process.Settings(
            host=arguments.host,
            kubeconfig=arguments.kubeconfig,
            state_dir=arguments.state,
            hypervisor_uri=arguments.hypervisor,
            liveness=None,
        )
        await process.run(settings, stop, connect=connect)

    doom.watch()
    asyncio.run(run())
    doom.rest()
    if order.record:
        pathlib.Path(order.record).write_text(json.dumps(doom.calls))


def _begin(order: Order, arguments: argparse.Namespace) -> int:
    """A process that lives so; its pid."""
    pid = os.fork()
    if pid:
        return pid
    try:
        # It must not outlive the one that would be asked to end it.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        _live(order, arguments)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(1)
    os._exit(0)


def _serve(connection: socket.socket, arguments: argparse.Namespace) -> None:
    """One life, from the order to its end: the answer is how it ended, as `os.waitpid` tells it."""
    with connection, connection.makefile("rb") as stream:
        order: Mapping[str, Any] | None = json.loads(stream.readline() or b"null")
        if order is None:
            return
        pid = _begin(Order(**order), arguments)
        ends = os.pidfd_open(pid)
        ready, _, _ = select.select([ends, connection], [], [])
        if ends not in ready:
            os.kill(pid, signal.SIGTERM if order["record"] else signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        os.close(ends)
        # Who ordered it may have gone.
        with contextlib.suppress(OSError):
            connection.sendall(json.dumps(status).encode() + b"\n")


def main() -> None:
    parser = argparse.ArgumentParser(description="Run agents that end where they are told to.")
    parser.add_argument("socket", type=pathlib.Path)
    parser.add_argument("--host", required=True)
    parser.add_argument("--kubeconfig", required=True)
    parser.add_argument("--state", required=True)
    parser.add_argument("--hypervisor", default="qemu:///system")
    arguments, _ = parser.parse_known_args()
    arguments.socket.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(arguments.socket))
        listener.listen()
        while True:
            _serve(listener.accept()[0], arguments)


if __name__ == "__main__":
    main()
