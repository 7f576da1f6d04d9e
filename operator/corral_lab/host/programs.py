"""Start and stop single programs on a host: libvirtd, the agent, later FRR.

`corral_lab.host.libvirtd` and the lab's composition use it. A program is the supervisor's child, whose pid file anyone
may go by; it is stopped, or killed by a test, from outside, alone.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable

from corral_lab import errors, process
from corral_lab.host import namespace


def start(host: namespace.Host, name: str, argv: Iterable[str]) -> int:
    """Make the program run on the host, and return its pid: nothing where it does, with these arguments.

    Its output is appended to `host.log(name)`. Raises `errors.LabError` where the host is down or the program can't be
    started.
    """
    try:
        with connect(host, str(namespace.CONTROL), timeout=30.0) as connection:
            connection.sendall(json.dumps({"name": name, "argv": list(argv)}).encode() + b"\n")
            with connection.makefile("rb") as stream:
                answer = json.loads(stream.readline() or b"{}")
    except OSError as error:
        raise errors.LabError(
            f"The supervisor of host {host.name} does not answer: {error.strerror or error}.",
            next_step=f"See {host.log('supervisor')}, then try `corral lab up`.",
        ) from error
    if "pid" not in answer:
        sentence = answer.get("sentence", f"The supervisor of host {host.name} could not start {name}.")
        raise errors.LabError(sentence, next_step=answer.get("nextStep", f"See {host.log('supervisor')}."))
    return int(answer["pid"])


def stop(host: namespace.Host, name: str) -> None:
    """End the program; nothing where it does not run."""
    process.stop(host.pid_file(name))


def find(host: namespace.Host, name: str) -> process.Running | None:
    """The program as it runs, or None."""
    return process.find(host.pid_file(name))


def connect(host: namespace.Host, path: str, *, timeout: float) -> socket.socket:
    """A connection to a Unix socket at `path` as the host sees it.

    Raises OSError, and `errors.LabError` for a host that is down. It goes by way of the supervisor's view of the files,
    whose path is short: a socket's path has 107 characters at most.
    """
    running = process.find(host.supervisor)
    if running is None:
        raise errors.LabError(f"Host {host.name} of lab {host.lab} is down.", next_step="Try `corral lab up`.")
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(timeout)
        connection.connect(f"/proc/{running.pid}/root{path}")
    except BaseException:
        connection.close()
        raise
    return connection
