"""What a lab host is made of: its names, its folder, its network namespace, and the processes in it.

Every module of `corral_lab.host` goes by this one. A host is recognised by its network namespace, which a bind mount in
the host's folder holds: whatever runs in it is the host's, whoever started it, and nothing else is.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from corral_lab import errors, process

FOLDERS = (
    "/run",
    "/etc/libvirt",
    "/var/lib/libvirt",
    "/var/cache/libvirt",
    "/var/log/libvirt",
    "/etc/frr",
    "/var/tmp",  # noqa: S108 - a folder to hide, not one to write in
)
"""The machine's folders that a host has for itself. All of /run, because not every machine has a /run/libvirt; all of
/var/tmp, where FRR makes a folder for its crash logs."""

CONTROL = Path("/run/corral-lab.sock")
"""Where a host's supervisor listens, as seen on the host."""

_NAMED = Path("/run/netns")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?")
_SOCKET_PATH = 107
_AFTER_SIGTERM = 8.0
_AFTER_SIGKILL = 10.0


@dataclass(frozen=True, slots=True)
class Host:
    """One host of the lab called `lab`; all its files are in `folder`, which is its own.

    Raises `errors.LabError` for a name that is no DNS label of at most 32 characters, and for a folder that can't hold
    a host: one whose sockets' paths would be too long for the kernel, or which a host has for itself.
    """

    lab: str
    name: str
    folder: Path

    def __post_init__(self) -> None:
        for label in (self.lab, self.name):
            if not _LABEL.fullmatch(label):
                raise errors.LabError(
                    f"{label!r} can't be part of a lab host's name.",
                    next_step="Use at most 32 lower-case letters, digits and dashes, such as demo or h1.",
                )
        hidden = any(self.folder.is_relative_to(folder) for folder in FOLDERS)
        if hidden or len(os.fsencode(self.libvirt_socket)) > _SOCKET_PATH:
            raise errors.LabError(
                f"The folder {self.folder} can't hold a lab host: its path is too long, or hidden on the host itself.",
                next_step="Use a folder with a shorter path outside /run, /var/tmp, and libvirt's and FRR's own.",
            )

    @property
    def network_namespace(self) -> str:
        """The name that `ip netns` knows."""
        return f"corral-{self.lab}-{self.name}"

    @property
    def network_file(self) -> Path:
        """Holds the network namespace, so that it outlives every process in it."""
        return self.folder / "netns"

    @property
    def supervisor(self) -> Path:
        """The supervisor's pid file."""
        return self.folder / "supervisor.pid"

    @property
    def pids(self) -> Path:
        """The folder of the pid files of the host's programs."""
        return self.folder / "pids"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    @property
    def libvirt_socket(self) -> Path:
        """libvirtd's socket, as the machine sees it."""
        return self.own("/run") / "libvirt" / "libvirt-sock"

    @property
    def libvirt_uri(self) -> str:
        """How a program on the machine reaches this host's libvirtd. On the host itself, `qemu:///system` does."""
        return f"qemu+unix:///system?socket={self.libvirt_socket}"

    def own(self, folder: str) -> Path:
        """Where what the host sees as `folder` (one of FOLDERS) is, on the machine."""
        return self.folder / "root" / folder.removeprefix("/")

    def pid_file(self, program: str) -> Path:
        return self.pids / f"{program}.pid"

    def log(self, program: str) -> Path:
        return self.logs / f"{program}.log"

    def command(self, argv: Iterable[str]) -> list[str]:
        """`argv` as it is run on the host by root of the machine. Raises `errors.LabError` where the host is down."""
        running = process.find(self.supervisor)
        if running is None:
            raise errors.LabError(f"Host {self.name} of lab {self.lab} is down.", next_step="Try `corral lab up`.")
        return enter(running.pid, argv)

    def processes(self) -> list[int]:
        """The pids of all that runs on the host, its supervisor too."""
        return processes(self.network_file)


def enter(pid: int, argv: Iterable[str]) -> list[str]:
    """`argv` run in the namespaces of `pid`. nsenter becomes the program: the pid is the program's."""
    return ["nsenter", f"--target={pid}", "--mount", "--uts", "--net", "--", *argv]


def holds(network: Path) -> bool:
    """Whether a network namespace is mounted there. pathlib's own `is_mount` knows folders only."""
    return os.path.ismount(network)


def processes(network: Path) -> list[int]:
    """The pids of all processes in the network namespace that `network` holds; none where it holds none.

    What sees the machine's own files (`ip netns exec`, a tool of a person's) counts as well: it would keep the
    namespace alive.
    """
    if not holds(network):
        return []
    ours = network.stat()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            # A process that is gone, or a zombie, has no namespaces any more.
            with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
                theirs = (entry / "ns/net").stat()
                if (theirs.st_dev, theirs.st_ino) == (ours.st_dev, ours.st_ino):
                    found.append(int(entry.name))
    return sorted(found)


def end_processes(network: Path, *, patience: float = _AFTER_SIGTERM) -> None:
    """End every process of the network namespace but the caller: SIGTERM, and SIGKILL to what is still there.

    With no `patience` (in seconds) all are killed at once, as by a power cut. Repeated until there is none, since what
    is ending may still start something. Raises `errors.LabError` where one stays.
    """
    began = time.monotonic()
    while pids := [pid for pid in processes(network) if pid != os.getpid()]:
        waited = time.monotonic() - began
        if waited > patience + _AFTER_SIGKILL:
            raise errors.LabError(
                f"Processes {', '.join(map(str, pids))} of {network} do not end, not even by SIGKILL.",
                next_step=f"See `cat /proc/{pids[0]}/stack` for what in the kernel it waits for, then try again.",
            )
        _signal(pids, signal.SIGTERM if waited < patience else signal.SIGKILL)


def create_network(host: Host) -> None:
    """Make the network namespace and give it its name; nothing where it is there."""
    if not holds(host.network_file):
        host.network_file.touch()
        subprocess.run(["unshare", f"--net={host.network_file}", "true"], check=True)
    # A link, not a mount: iproute2's own mounts in that folder would leave the folder mounted for good.
    _NAMED.mkdir(exist_ok=True)
    name = _NAMED / host.network_namespace
    if not name.is_symlink() or name.readlink() != host.network_file:
        name.unlink(missing_ok=True)
        name.symlink_to(host.network_file)


def remove_network(host: Host) -> None:
    """Remove the network namespace, and with it all its interfaces and routes, and its name."""
    name = _NAMED / host.network_namespace
    if name.is_symlink() and name.readlink() == host.network_file:
        name.unlink()
    with contextlib.suppress(OSError):
        # Kept where it holds another's, or is iproute2's own mount.
        _NAMED.rmdir()
    if holds(host.network_file):
        subprocess.run(["umount", "--lazy", str(host.network_file)], check=True)
    host.network_file.unlink(missing_ok=True)


def _signal(pids: Iterable[int], number: signal.Signals) -> None:
    """Signal each, and wait a moment for them to end. A child of ours is reaped, or it would stay a zombie."""
    poll = select.poll()
    descriptors = []
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            descriptor = os.pidfd_open(pid)
            descriptors.append(descriptor)
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, number)
            poll.register(descriptor, select.POLLIN)
    deadline = time.monotonic() + 2.0
    left = len(descriptors)
    while left and time.monotonic() < deadline:
        for descriptor, _ in poll.poll(100):
            poll.unregister(descriptor)
            left -= 1
    for descriptor in descriptors:
        os.close(descriptor)
    reap()


def reap() -> None:
    """Take leave of every child that has ended: under a subreaper, orphans too."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
