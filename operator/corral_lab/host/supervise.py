"""A host's first process, `python -m corral_lab.host.supervise`; `corral_lab.host.lifecycle` starts it.

It makes the namespaces a host, starts the programs it is told to (over a socket; `programs` is the other end), and
takes in their orphans: every QEMU is one, and the machine's own first process may be slow to reap. It restarts nothing.
At SIGTERM it ends everything on the host, and itself.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import selectors
import signal
import socket
import sys
from pathlib import Path
from types import FrameType

from corral_lab import errors, process
from corral_lab.host import inside, namespace

_PR_SET_CHILD_SUBREAPER = 36
_LONGEST_REQUEST = 1 << 16


class Supervisor:
    """Serves one host until SIGTERM."""

    def __init__(self, host: namespace.Host) -> None:
        self.host = host
        self._stopping = False

    def run(self) -> None:
        awake, asleep = socket.socketpair()
        awake.setblocking(False)
        asleep.setblocking(False)
        signal.set_wakeup_fd(asleep.fileno())
        signal.signal(signal.SIGCHLD, _ignored)
        signal.signal(signal.SIGTERM, self._stop)
        namespace.CONTROL.unlink(missing_ok=True)
        with awake, asleep, socket.socket(socket.AF_UNIX) as control, selectors.DefaultSelector() as selector:
            control.bind(str(namespace.CONTROL))
            namespace.CONTROL.chmod(0o600)
            control.listen()
            selector.register(awake, selectors.EVENT_READ)
            selector.register(control, selectors.EVENT_READ)
            while not self._stopping:
                ready = [key.fileobj for key, _ in selector.select()]
                if awake in ready:
                    awake.recv(4096)
                    namespace.reap()
                if control in ready:
                    self._serve(control.accept()[0])
            signal.set_wakeup_fd(-1)
        self._end()

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._stopping = True

    def _serve(self, connection: socket.socket) -> None:
        """One request: `{name, argv}` gets `{pid}` or `{sentence, nextStep}`; one not whole in time gets nothing."""
        connection.settimeout(2.0)
        with connection, contextlib.suppress(OSError, ValueError):
            with connection.makefile("rb") as stream:
                asked = json.loads(stream.readline(_LONGEST_REQUEST))
            connection.sendall(json.dumps(self._start(asked["name"], tuple(asked["argv"]))).encode() + b"\n")

    def _start(self, name: str, argv: tuple[str, ...]) -> dict[str, object]:
        daemon = process.Daemon(name, argv, pid_file=self.host.pid_file(name), log=self.host.log(name))
        try:
            return {"pid": process.start(daemon).pid}
        except errors.LabError as error:
            return {"sentence": error.sentence, "nextStep": error.next_step}

    def _end(self) -> None:
        # First what would start guests again, then the guests.
        for pid_file in sorted(self.host.pids.glob("*.pid")):
            process.stop(pid_file)
        namespace.end_processes(self.host.network_file)


def _ignored(number: int, frame: FrameType | None) -> None:
    """The wake-up descriptor says it; a handler must be there all the same, or the signal would be dropped."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Run one host of the lab.")
    parser.add_argument("--lab", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--settled", action="store_true", help="the namespaces are a host's already")
    options = parser.parse_args()
    host = namespace.Host(options.lab, options.name, options.folder)
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    if not options.settled:
        inside.settle(host)
    Supervisor(host).run()


if __name__ == "__main__":
    try:
        main()
    except errors.LabError as error:
        sys.exit(f"{error.sentence} {error.next_step}")
