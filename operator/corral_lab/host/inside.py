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
# Source: the kernel's Documentation/networking/ip-sysctl.rst.
_SWITCHES = {
    "net/ipv4/ip_forward": 1,
    "net/ipv6/conf/all/forwarding": 1,
    # Of two equal ways, a flow takes the one that its ports choose: two flows between the same two may go by both.
    "net/ipv4/fib_multipath_hash_policy": 1,
    "net/ipv6/fib_multipath_hash_policy": 1,
    # A cable of the lab's has one neighbour, so nobody else has our link-local address: it is good at once, not after
    # the second in which its duplicate is looked for, and BGP is up that much sooner.
    "net/ipv6/conf/default/accept_dad": 0,
}


def settle(host: namespace.Host) -> None:
    """Must run in network, mount and UTS namespaces of its own, whose mounts reach no other namespace."""
    # A copy of another host's namespace file here would keep that host's network alive after its end.
    for held in _held():
        let_go = subprocess.run(["umount", "--lazy", held], capture_output=True, text=True, check=False)
        # Somebody who removes that namespace on the machine at this moment takes the mount away here, too.
        if let_go.returncode != 0 and held in _held():
            raise OSError(let_go.stderr.strip())
    for folder in namespace.FOLDERS:
        _run("mount", "--bind", str(host.own(folder)), folder)
    _own_sysfs()
    socket.sethostname(host.name)
    _run("ip", "link", "set", "dev", "lo", "up")
    for name, value in _SWITCHES.items():
        switch = Path("/proc/sys") / name
        if switch.exists():
            switch.write_text(f"{value}\n")


def _held() -> list[str]:
    return namespace_files(Path("/proc/self/mountinfo").read_text().splitlines())


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
