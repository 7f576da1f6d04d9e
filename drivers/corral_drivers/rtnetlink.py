"""The kernel's rtnetlink (rtnetlink(7)) in the few words that `link` and `routing` need.

They ask the kernel for one guest's interface among thousands, once a reconciliation. pyroute2 decodes every attribute
of every link for that (0.3 s for 1,000 links); here a dump is a list of raw messages (9 ms), of which a room decodes
its own.

A socket belongs to the network namespace of the thread that opens it, and opening one costs a few microseconds: open it
where it is used, `with rtnetlink.Socket() as kernel: …`, and nothing outlives the call. Only a `Watch` stays open.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import errno
import os
import socket
import struct
import sys
import types
from collections.abc import Callable, Iterator
from typing import Self

HEADER = struct.Struct("=IHHII")
"""nlmsghdr: length with this header, type, flags, sequence number, port."""

_ATTRIBUTE = struct.Struct("=HH")
_REQUEST, _MULTI, _ACK, _DUMP_INTERRUPTED, _DUMP = 0x01, 0x02, 0x04, 0x10, 0x300
_ACK_TLVS = 0x200
_SENTENCE = 1
_END = {2: 4 + HEADER.size, 3: 4}
"""NLMSG_ERROR and NLMSG_DONE, and where their attributes start: behind the number, in an error also the header."""

_KIND_MASK = 0x3FFF
_SOL_NETLINK, _CAP_ACK, _EXT_ACK, _STRICT_CHECK = 270, 10, 11, 12
_RECEIVE = 32 * 1024
"""The kernel fills at most 32 KiB at once, and less when it is offered less."""

_DUMP_TRIES = 10

_FORCE_BUFFER = 33
_QUEUE = 4 * 1024 * 1024
"""Octets of events that the kernel keeps for us: some ten thousand, as a host that is told a whole fabric gets."""

_HEARD_AT_ONCE = 1000
"""How many datagrams are read in one turn of the event loop."""


class Group(enum.IntFlag):
    """What the kernel tells of when anybody changes it (`RTMGRP_…`)."""

    LINK = 0x1
    NEIGHBOUR = 0x4
    IPV4_ROUTE = 0x40
    IPV6_ADDRESS = 0x100
    IPV6_ROUTE = 0x400


class Flag(enum.IntFlag):
    """Modifiers of a request that makes something (`NLM_F_…`)."""

    NONE = 0
    REPLACE = 0x100
    EXCLUSIVE = 0x200
    CREATE = 0x400


class Socket:
    """One conversation with the kernel. Every refusal is an OSError with the kernel's number and words.

    `protocol` is another family of netlink's than rtnetlink, of the same form of messages.
    """

    def __init__(self, protocol: int = socket.NETLINK_ROUTE) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._sequence = 0
        self._interrupted = False
        for option in (_CAP_ACK, _EXT_ACK, _STRICT_CHECK):
            self._socket.setsockopt(_SOL_NETLINK, option, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the conversation."""
        self._socket.close()

    def change(self, kind: int, body: bytes, flags: Flag = Flag.NONE) -> None:
        """Ask for a change and wait until the kernel has made it."""
        self._send(kind, _ACK | flags, body)
        for _ in self._replies():
            pass

    def get(self, kind: int, body: bytes) -> bytes:
        """The one object that `body` names, without its nlmsghdr."""
        self._send(kind, 0, body)
        return next(self._replies())

    def dump(self, kind: int, body: bytes) -> list[bytes]:
        """Everything that matches `body`, each without its nlmsghdr: one consistent look at the kernel's table.

        A table that keeps changing under ten looks is an OSError (EBUSY).
        """
        for _ in range(_DUMP_TRIES):
            self._send(kind, _DUMP, body)
            self._interrupted = False
            found = list(self._replies())
            if not self._interrupted:
                return found
        raise OSError(errno.EBUSY, "the kernel's table changed under every one of ten looks")

    def _send(self, kind: int, flags: int, body: bytes) -> None:
        self._sequence += 1
        self._socket.send(HEADER.pack(HEADER.size + len(body), kind, _REQUEST | flags, self._sequence, 0) + body)

    def _replies(self) -> Iterator[bytes]:
        """The messages of the request just sent, up to its end."""
        while True:
            data = self._socket.recv(_RECEIVE)
            start = 0
            while start < len(data):
                length, kind, flags, sequence, _ = HEADER.unpack_from(data, start)
                body = data[start + HEADER.size : start + length]
                start += (length + 3) & ~3
                if sequence != self._sequence:
                    continue
                self._interrupted = bool(flags & _DUMP_INTERRUPTED) or self._interrupted
                if kind in _END:
                    _raise_unless_acknowledged(body, said=_END[kind] if flags & _ACK_TLVS else len(body))
                    return
                yield body
                if not flags & _MULTI:
                    return


class Watch:
    """What the kernel tells of by itself: `heard(kind, body)` on the event loop for each message of these groups.

    `missed` is called where the kernel had to drop some. It hears of the network namespace of the thread that makes it,
    which is the event loop's, until it is closed. Raises OSError.
    """

    def __init__(
        self,
        groups: int,
        heard: Callable[[int, bytes], None],
        missed: Callable[[], None],
        protocol: int = socket.NETLINK_ROUTE,
    ) -> None:
        self._heard = heard
        self._missed = missed
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_NETLINK, kind, protocol)
        try:
            widen(self._socket)
            self._socket.bind((0, groups))
            self._loop = asyncio.get_running_loop()
            self._loop.add_reader(self._socket, self._read)
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        """Hear no more."""
        self._loop.remove_reader(self._socket)
        self._socket.close()

    def _read(self) -> None:
        for _ in range(_HEARD_AT_ONCE):
            try:
                data = self._socket.recv(_RECEIVE)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._missed()
                continue
            for kind, body in messages(data):
                self._heard(kind, body)


def widen(hearing: socket.socket) -> None:
    """As far as the machine's limit (`net.core.rmem_max`), and beyond where we may."""
    hearing.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _QUEUE)
    with contextlib.suppress(PermissionError):
        hearing.setsockopt(socket.SOL_SOCKET, _FORCE_BUFFER, _QUEUE)


def messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The messages in what was received, each by its kind and without its nlmsghdr."""
    start = 0
    while start + HEADER.size <= len(data):
        length, kind, _, _, _ = HEADER.unpack_from(data, start)
        yield kind, data[start + HEADER.size : start + length]
        start += (max(length, HEADER.size) + 3) & ~3


def _raise_unless_acknowledged(body: bytes, said: int) -> None:
    """An acknowledgement is an error with the number 0. The kernel's own sentence is an attribute, `said` octets in."""
    (error,) = struct.unpack_from("=i", body)
    if error == 0:
        return
    sentence = attributes(body, said).get(_SENTENCE, b"").rstrip(b"\0").decode(errors="replace")
    words = os.strerror(-error)
    raise OSError(-error, f"{words} ({sentence})" if sentence else words)


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute (nlattr), padded to four octets."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + b"\0" * (-len(value) % 4)


def attributes(body: bytes, start: int) -> dict[int, bytes]:
    """The attributes from `start` to the end, by their kind; a kind that comes twice shows its last value."""
    found = {}
    while start + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, start)
        if length < _ATTRIBUTE.size:
            break
        found[kind & _KIND_MASK] = body[start + _ATTRIBUTE.size : start + length]
        start += (length + 3) & ~3
    return found


def u32(value: int) -> bytes:
    """A number as most attributes carry it: four octets, in the machine's order."""
    return value.to_bytes(4, sys.byteorder)


def number(value: bytes) -> int:
    """The number in an attribute of one, two or four octets."""
    return int.from_bytes(value, sys.byteorder)
