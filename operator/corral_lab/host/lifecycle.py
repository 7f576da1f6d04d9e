"""Brings a lab host up and takes it down, from the machine.

`corral lab up|down`, the demo and the tests' fixtures call it. Level-triggered: `up` looks at what is there and makes
the rest; after the supervisor was killed it finds the host's namespaces through what still runs on it. `down` leaves
nothing.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path

import corral_lab
from corral_lab import errors, process
from corral_lab.host import frr, machine, namespace, programs

_PROGRAMS = {
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "ip": "iproute2",
    "libvirtd": "libvirt-daemon",
    "qemu-system-x86_64": "qemu-system-x86",
    str(frr.PROGRAMS / frr.ZEBRA): "frr",
}
_FOLDERS = {"/etc/frr": "frr"}
_READY_WITHIN = 20.0


def up(host: namespace.Host) -> None:
    """Make the host be there: namespaces, files, supervisor. Nothing where it is up. What was in its folder is kept.

    Raises `errors.LabError` without root, for a missing program, and where the supervisor does not come up.
    """
    _check()
    for folder in (*map(host.own, namespace.FOLDERS), host.pids, host.logs):
        folder.mkdir(parents=True, exist_ok=True)
    namespace.create_network(host)
    if process.find(host.supervisor) is None:
        process.start(_supervisor(host))
    _wait(host)


def stop(host: namespace.Host) -> None:
    """End everything that runs on the host, as a power cut would, but for its SIGTERM first. Its files stay."""
    process.stop(host.supervisor, deadline=30.0)
    namespace.end_processes(host.network_file)
    for left in host.pids.glob("*.pid"):
        left.unlink()
    namespace.remove_network(host)


def cut_power(host: namespace.Host) -> None:
    """End everything on the host at once, with its network and what lies in its /run. Its disks stay, for `up`."""
    end_at_once(host)
    namespace.remove_network(host)


def end_at_once(host: namespace.Host) -> None:
    """The same, but the network stays, for `up` to find: nobody at the other end of a cable loses an interface.

    The carrier goes first, as when the power does. Otherwise the kernel would still say goodbye for what it kills, and
    a BGP neighbour take that for the graceful restart of a router that goes on forwarding.
    """
    if namespace.holds(host.network_file):
        with machine.on_host(host) as netlink:
            for link in netlink.get_links():
                netlink.link("set", index=link["index"], state="down")
    namespace.end_processes(host.network_file, patience=0.0)
    for left in (*host.pids.glob("*.pid"), host.supervisor):
        left.unlink(missing_ok=True)
    shutil.rmtree(host.own("/run"), ignore_errors=True)


def down(host: namespace.Host) -> None:
    """Leave nothing of the host: no process, namespace, mount, interface, route or file. Idempotent."""
    stop(host)
    if host.folder.exists():
        shutil.rmtree(host.folder)


def _supervisor(host: namespace.Host) -> process.Daemon:
    program = [sys.executable, "-m", "corral_lab.host.supervise"]
    program += [f"--lab={host.lab}", f"--name={host.name}", f"--folder={host.folder}"]
    survivors = [pid for pid in host.processes() if _has_own_files(pid)]
    if survivors:
        argv = namespace.enter(survivors[0], [*program, "--settled"])
    else:
        argv = ["nsenter", f"--net={host.network_file}", "--"]
        argv += ["unshare", "--mount", "--uts", "--propagation=private", "--", *program]
    # The sources of a checkout that was never installed are found by where this package lies.
    source = str(Path(corral_lab.__file__).parent.parent)
    search = os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH", "")]))
    argv = ["env", f"PYTHONPATH={search}", *argv]
    return process.Daemon(f"host {host.name}", tuple(argv), pid_file=host.supervisor, log=host.log("supervisor"))


def _has_own_files(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/ns/mnt").stat().st_ino != Path("/proc/self/ns/mnt").stat().st_ino
    except FileNotFoundError:
        return False


def _wait(host: namespace.Host) -> None:
    deadline = time.monotonic() + _READY_WITHIN
    while time.monotonic() < deadline:
        try:
            programs.connect(host, str(namespace.CONTROL), timeout=1.0).close()
        except OSError:
            time.sleep(0.02)
        except errors.LabError:
            break
        else:
            return
    words = process.tail(host.log("supervisor"))
    raise errors.LabError(
        f"Host {host.name} does not come up. Its supervisor's last words:\n{words}",
        next_step=f"See {host.log('supervisor')}.",
    )


def _check() -> None:
    if os.geteuid() != 0:
        raise errors.LabError("Lab hosts are made of namespaces, which needs root.", next_step="Run this with sudo.")
    missing = {package for program, package in _PROGRAMS.items() if not shutil.which(program)}
    folders = [folder for folder in namespace.FOLDERS if not Path(folder).is_dir()]
    missing |= {_FOLDERS.get(folder, "libvirt-daemon-system") for folder in folders}
    if missing:
        raise errors.LabError(
            "Lab hosts need programs that are not installed.",
            next_step=f"apt install --no-install-recommends {' '.join(sorted(missing))}",
        )
