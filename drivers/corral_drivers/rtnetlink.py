"""The kernel's rtnetlink (rtnetlink(7)) in the few words that `link` and `routing` need.

They ask the kernel for one guest's interface among thousands, once a reconciliation. pyroute2 decodes every attribute
of every link for that (0.3 s for 1,000 links); here a dump is a list of raw messages (9 ms), of which a room decodes
its own.

A socket belongs to the network namespace of the thread that opens it, and opening one costs a few microseconds: open it
where it is used, `with rtnetlink.Socket() as kernel: …`, and nothing outlives the call.
"""

from __future__ import annotations

import enum
import errno
import os
import socket
import struct
import sys
import types
from collections.abc import Iterator
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


class Flag(enum.IntFlag):
    """Modifiers of a request that makes something (`NLM_F_…`)."""

    NONE = 0
    REPLACE = 0x100
    EXCLUSIVE = 0x200
    CREATE = 0x400


class Socket:
    """One conversation with the kernel. Every refusal is an OSError with the kernel's number and words."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._sequence = 0
        self._interrupted = False
        for option in (_CAP_ACK, _EXT_ACK, _STRICT_CHECK):
            self._socket.setsockopt(_SOL_NETLINK, option, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
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
