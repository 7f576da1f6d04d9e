"""A network of a test's own, for the contracts of what lives in the kernel's tables."""

from __future__ import annotations

import contextlib
import ctypes
import pathlib
import struct
from collections.abc import Iterator

CLONE_NEWNET = 0x40000000


@contextlib.contextmanager
def private_network() -> Iterator[None]:
    """The thread, and those it starts, in a new network namespace; it goes with all it holds when they are back."""
    libc = ctypes.CDLL(None, use_errno=True)
    with pathlib.Path("/proc/thread-self/ns/net").open() as home:
        if libc.unshare(CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "unshare")
        try:
            yield
        finally:
            libc.setns(home.fileno(), CLONE_NEWNET)


@contextlib.contextmanager
def without_raw_sockets() -> Iterator[None]:
    """The thread without the right to packet sockets (CAP_NET_RAW in its effective set; capabilities(7))."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = struct.pack("=Ii", 0x20080522, 0)
    sets = ctypes.create_string_buffer(24)
    if libc.capget(header, sets):
        raise OSError(ctypes.get_errno(), "capget")
    effective, *rest = struct.unpack("=6I", sets.raw)
    libc.capset(header, struct.pack("=6I", effective & ~(1 << 13), *rest))
    try:
        yield
    finally:
        libc.capset(header, sets)
