"""libvirt's own event loop, once a process, in a daemon thread; `connection` starts it before it opens anything.

libvirt needs it for lifecycle events, for keepalive, and to notice that a daemon is gone. It is the process's, not a
connection's: libvirt registers one implementation for good.
"""

from __future__ import annotations

import contextlib
import functools
import threading

import libvirt


@functools.cache
def _run() -> threading.Thread:
    # Every error reaches us as an exception: libvirt need not print it too.
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    libvirt.virEventRegisterDefaultImpl()
    thread = threading.Thread(target=_forever, name="libvirt-events", daemon=True)
    thread.start()
    return thread


def _forever() -> None:
    while True:
        with contextlib.suppress(libvirt.libvirtError):
            libvirt.virEventRunDefaultImpl()


_lock = threading.Lock()


def ensure() -> None:
    """Have the loop run; from any thread, as often as one likes."""
    with _lock:
        _run()
