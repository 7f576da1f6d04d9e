"""Two packet sockets for all taps of a host (packet(7)): one hears IPv4, one IPv6. `responder` has them.

A packet socket hears before any firewall's inet family does, tells by which interface and from which MAC a frame came,
and sends by the interface it is given: no tap needs an address, no group has to be joined on it, and no rule of a
firewall has to let it through. The kernel passes on what a filter of some twenty instructions takes for a question, and
drops the rest unread. Nothing rests on that filter but the cost: `respond` looks at every frame again.

A guest that asks without end is not heard for a while, by the same filter: it costs its host nothing then, and the
others are answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import socket
import struct
import time
from collections.abc import Callable, Collection

from corral_drivers.dhcp import advertise, dhcp4, dhcp6, frames, respond

Answering = Callable[[str, bytes], bytes | None]
"""The answer to a frame that came in by this interface."""

AT_ONCE, A_SECOND = 64, 16
"""Questions of one interface that are answered in one go, and how many more each second: a client asks some four."""

_READ_AT_ONCE = 32
_MOST_MUTED = 100
"""A conditional jump of the filter reaches 255 instructions, and each interface that is not heard is one."""

_MOST_KNOWN = 10_000
_ATTACH_FILTER = 26
_OTHER_HOST = 3

_LOAD_WORD_OF_FRAME, _INDEX, _PACKET_TYPE = 0x20, 0xFFFFF008, 0xFFFFF004
_LOAD_BYTE, _LOAD_HALF, _LOAD_HEADER_LENGTH, _LOAD_HALF_AT_X = 0x30, 0x28, 0xB1, 0x48
_IF_EQUAL, _IF_AT_LEAST, _IF_ANY_BIT, _RETURN = 0x15, 0x35, 0x45, 0x06
_INSTRUCTION = struct.Struct("=HBBI")


def program(kind: int, muted: Collection[int]) -> list[tuple[int, int, int, int]]:
    """The filter (classic BPF) for frames of this EtherType, which hears no interface of these numbers.

    Instructions are code, jump if true, jump if false, value; where one jumps to `DROP`, it is to the last but one.
    """
    drop = -1
    heard = [(_LOAD_WORD_OF_FRAME, 0, 0, _PACKET_TYPE), (_IF_AT_LEAST, drop, 0, _OTHER_HOST)]
    heard.append((_LOAD_WORD_OF_FRAME, 0, 0, _INDEX))
    heard += [(_IF_EQUAL, drop, 0, index) for index in sorted(muted)[:_MOST_MUTED]]
    if kind == frames.IPV4:
        heard += [
            (_LOAD_BYTE, 0, 0, 23),
            (_IF_EQUAL, 0, drop, frames.UDP),
            (_LOAD_HALF, 0, 0, 20),
            (_IF_ANY_BIT, drop, 0, 0x3FFF),
            (_LOAD_HEADER_LENGTH, 0, 0, 14),
            (_LOAD_HALF_AT_X, 0, 0, 16),
            (_IF_EQUAL, 0, drop, dhcp4.SERVER),
        ]
    else:
        heard += [
            (_LOAD_BYTE, 0, 0, 20),
            (_IF_EQUAL, 0, 2, frames.UDP),
            (_LOAD_HALF, 0, 0, 56),
            (_IF_EQUAL, 3, drop, dhcp6.SERVER),
            (_IF_EQUAL, 0, drop, frames.ICMPV6),
            (_LOAD_BYTE, 0, 0, 54),
            (_IF_EQUAL, 0, drop, advertise.SOLICITATION),
        ]
    heard += [(_RETURN, 0, 0, respond.LONGEST), (_RETURN, 0, 0, 0)]
    last = len(heard) - 1

    def resolved(at: int, jump: int) -> int:
        return last - at - 1 if jump == drop else jump

    return [(code, resolved(at, yes), resolved(at, no), value) for at, (code, yes, no, value) in enumerate(heard)]


class Sockets:
    """Open from the moment it is made, in the event loop's network namespace. Raises OSError."""

    def __init__(self, answering: Answering, muted_for: float) -> None:
        self._answering = answering
        self._muted_for = muted_for
        self._loop = asyncio.get_running_loop()
        self._budgets: dict[str, tuple[float, float]] = {}
        self._muted: dict[int, float] = {}
        self._sockets: dict[int, socket.socket] = {}
        self._unmuting: asyncio.TimerHandle | None = None
        try:
            for kind in (frames.IPV4, frames.IPV6):
                self._sockets[kind] = self._opened(kind)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Hear and say no more."""
        if self._unmuting:
            self._unmuting.cancel()
        for opened in self._sockets.values():
            self._loop.remove_reader(opened)
            opened.close()
        self._sockets = {}

    def send(self, interface: str, frame: bytes) -> None:
        """Out by this interface, as far as it takes it: who asked and is not answered asks again."""
        kind = int.from_bytes(frame[12:14], "big")
        with contextlib.suppress(OSError):
            self._sockets[kind].sendto(frame, (interface, kind))

    def _opened(self, kind: int) -> socket.socket:
        mode = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        opened = socket.socket(socket.AF_PACKET, mode, socket.htons(kind))
        try:
            _attach(opened, program(kind, ()))
            self._loop.add_reader(opened, self._read, opened)
        except BaseException:
            opened.close()
            raise
        return opened

    def _read(self, hearing: socket.socket) -> None:
        for _ in range(_READ_AT_ONCE):
            try:
                frame, (interface, *_) = hearing.recvfrom(respond.LONGEST)
            except OSError:
                return
            # An interface that went away meanwhile has no name.
            if interface and self._may_ask(interface) and (said := self._answering(interface, frame)):
                self.send(interface, said)

    def _may_ask(self, interface: str) -> bool:
        """Whether it has something left of what it may ask; who has nothing left is not heard for a while."""
        now = time.monotonic()
        left, since = self._budgets.get(interface, (float(AT_ONCE), now))
        left = min(left + (now - since) * A_SECOND, AT_ONCE) - 1
        if len(self._budgets) >= _MOST_KNOWN:
            self._budgets.clear()
        self._budgets[interface] = (max(left, 0.0), now)
        if left < 0 and len(self._muted) < _MOST_MUTED:
            with contextlib.suppress(OSError):
                self._muted[socket.if_nametoindex(interface)] = now + self._muted_for
                self._filter()
        return left >= 0

    def _filter(self) -> None:
        for kind, opened in self._sockets.items():
            _attach(opened, program(kind, self._muted))
        if self._muted and self._unmuting is None:
            self._unmuting = self._loop.call_later(1.0, self._unmute)

    def _unmute(self) -> None:
        self._unmuting = None
        now = time.monotonic()
        self._muted = {index: until for index, until in self._muted.items() if until > now}
        self._filter()


def _attach(opened: socket.socket, instructions: list[tuple[int, int, int, int]]) -> None:
    code = b"".join(_INSTRUCTION.pack(*one) for one in instructions)
    held = ctypes.create_string_buffer(code, len(code))
    described = struct.pack("@HP", len(instructions), ctypes.addressof(held))
    opened.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, described)
