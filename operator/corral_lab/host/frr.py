"""FRR's daemons on a lab host or a spine: zebra and bgpd, started as a distribution's service would start them.

`corral lab up` and the tests' fixtures call `start` on hosts that are up. FRR's sockets are in the host's own /run/frr,
and what it is configured with in its own /etc/frr. On a host that is frr.conf, and the agent owns it: here it is only
read back at a start, by `vtysh -b`, as /usr/lib/frr/frrinit.sh does at a boot. A spine has a file for each daemon:
FRR reads it by itself where there is no frr.conf.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from corral_lab import errors, files, process
from corral_lab.host import namespace, programs

ZEBRA, BGPD = "zebra", "bgpd"
NAMES = (ZEBRA, BGPD)
"""In the order in which they start: bgpd looks for zebra once, and then again only after ten seconds."""

PROGRAMS = Path("/usr/lib/frr")
READY_WITHIN = 20.0

_USER = "frr"
_SOCKETS = {ZEBRA: "/run/frr/zserv.api", BGPD: "/run/frr/bgpd.vty"}
# Output goes to the log of the program, and no vty listens on TCP.
_ALIKE = ("--log", "stdout", "--log-level", "warnings", "--vty_port", "0")
_OPTIONS = {
    # Routes stay when zebra ends, and for so many seconds until its successor has learnt them anew: without both, a
    # restart loses packets. The buffer is what Debian gives it: bursts of routes overrun the kernel's default.
    ZEBRA: ("--retain", "--graceful_restart", "60", "--nl-bufsize", "90000000"),
    BGPD: (),
}


def start(hosts: Sequence[namespace.Host]) -> None:
    """Make FRR run on these hosts, all at the same time, and return when it answers. Nothing where it does.

    It has the configuration that is in the host's /etc/frr; without one, none. Raises `errors.LabError` with the last
    words of a daemon that does not come up in time.
    """
    fresh: dict[str, namespace.Host] = {}
    for host in hosts:
        _prepare(host)
    for name in NAMES:
        before = {host.name: programs.find(host, name) for host in hosts}
        for host in hosts:
            programs.start(host, name, [str(PROGRAMS / name), *_ALIKE, *_OPTIONS[name]])
        for host in hosts:
            _wait(host, name)
        fresh |= {host.name: host for host in hosts if programs.find(host, name) != before[host.name]}
    _read_back(host for host in fresh.values() if (host.own("/etc/frr") / "frr.conf").exists())


def told(host: namespace.Host) -> dict[tuple[str, str], int]:
    """How many prefixes each neighbour with an established session has told, by the address family and its name."""
    asked = host.command(["vtysh", "-c", "show bgp summary json"])
    done = subprocess.run(asked, capture_output=True, timeout=READY_WITHIN, check=False)
    families = json.loads(done.stdout or "{}") if done.returncode == 0 else {}
    return {
        (family, name): peer["pfxRcd"]
        for family, found in families.items()
        for name, peer in found.get("peers", {}).items()
        if peer["state"] == "Established"
    }


def stop(host: namespace.Host) -> None:
    """End FRR on the host; the kernel's routes stay: zebra, which keeps them, ends before bgpd takes its own away."""
    for name in NAMES:
        programs.stop(host, name)


def _prepare(host: namespace.Host) -> None:
    """FRR gives up root for its own user, who must get at its folders, whatever the caller's umask."""
    for folder in ("/run", "/etc/frr"):
        host.own(folder).chmod(0o755)
    host.own("/var/tmp").chmod(0o1777)  # noqa: S108 - the host's own, where FRR keeps its crash logs
    sockets = host.own("/run") / "frr"
    sockets.mkdir(exist_ok=True)
    shutil.chown(sockets, _USER, _USER)
    # vtysh complains at every call where there is none.
    settings = host.own("/etc/frr") / "vtysh.conf"
    if not settings.exists():
        files.replace(settings, "service integrated-vtysh-config\n", mode=0o644)


def _read_back(hosts: Iterable[namespace.Host]) -> None:
    reading = []
    for host in hosts:
        command = host.command(["vtysh", "-b"])
        reading.append((host, subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)))
    for host, reader in reading:
        _, said = reader.communicate(timeout=READY_WITHIN)
        if reader.returncode != 0:
            # As at a boot: what of it is right is in force, and the agent sees what is not.
            with host.log(BGPD).open("ab") as log:
                log.write(said)


def _wait(host: namespace.Host, name: str) -> None:
    deadline = time.monotonic() + READY_WITHIN
    while time.monotonic() < deadline and programs.find(host, name):
        try:
            programs.connect(host, _SOCKETS[name], timeout=1.0).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise errors.LabError(
        f"{name} of {host.name} does not answer. Its last words:\n{process.tail(host.log(name))}",
        next_step=f"See {host.log(name)}.",
    )
