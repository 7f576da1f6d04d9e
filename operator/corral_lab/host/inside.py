"""Makes the namespaces that the supervisor was started in into a host: its files, hostname, loopback, forwarding.

`corral_lab.host.supervise` calls `settle` once, before anything runs on the host. All of it ends with the namespaces.
"""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Iterable
from pathlib import Path

from corral_lab.host import namespace

_CGROUPS = Path("/sys/fs/cgroup")
_FORWARDING = ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding")


def settle(host: namespace.Host) -> None:
    """Must run in network, mount and UTS namespaces of its own, whose mounts reach no other namespace."""
    # A copy of another host's namespace file here would keep that host's network alive after its end.
    for held in namespace_files(Path("/proc/self/mountinfo").read_text().splitlines()):
        _run("umount", "--lazy", held)
    for folder in namespace.FOLDERS:
        _run("mount", "--bind", str(host.own(folder)), folder)
    _own_sysfs()
    socket.sethostname(host.name)
    _run("ip", "link", "set", "dev", "lo", "up")
    for name in _FORWARDING:
        switch = Path("/proc/sys") / name
        if switch.exists():
            switch.write_text("1\n")


def namespace_files(mountinfo: Iterable[str]) -> list[str]:
    """Where a namespace is held by a mount (proc(5), /proc/pid/mountinfo), innermost first."""
    found = []
    for line in mountinfo:
        before, _, after = line.partition(" - ")
        if after.split()[0] == "nsfs":
            found.append(_unescaped(before.split()[4]))
    return found[::-1]


def _own_sysfs() -> None:
    """A sysfs of this network namespace, so that /sys/class/net is the host's own; the cgroups stay in sight."""
    aside = Path("/run/corral-lab-cgroup")
    shown = _CGROUPS.is_mount()
    if shown:
        aside.mkdir(exist_ok=True)
        _run("mount", "--move", str(_CGROUPS), str(aside))
    _run("mount", "-t", "sysfs", "sysfs", "/sys")
    if shown:
        _run("mount", "--move", str(aside), str(_CGROUPS))
        aside.rmdir()


def _unescaped(path: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), path)


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True)
