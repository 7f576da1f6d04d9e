"""A network of a test's own, for the contracts of what lives in the kernel's tables."""

from __future__ import annotations

import contextlib
import ctypes
import pathlib
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
