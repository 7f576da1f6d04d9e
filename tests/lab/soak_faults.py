"""What the soak does to a cloud: a row a fault, each with how it is struck and how it ends.

A later feature joins with a row. `strike` returns what ends the fault, None where nothing but Corral must; a fault that
finds nothing to hit (its victim is just being made) returns `MISSED`.
"""

from __future__ import annotations

import os
import pathlib
import signal
from collections.abc import Callable
from dataclasses import dataclass

from corral_lab import process, progress
from corral_lab.control_plane import components
from corral_lab.host import libvirtd, programs
from corral_lab.lab import AGENT, CONTROLLER

from .cloud import Cloud, Guest

End = Callable[[], None]


def _missed() -> None:
    """There was nothing to hit."""


MISSED: End = _missed


@dataclass(frozen=True, slots=True)
class Kind:
    """`weight` is how often it comes; `stops` whether a guest's process may end by it: of none, its victim, or all."""

    weight: float
    strike: Callable[[Cloud, Guest | None], End | None]
    stops: str = "none"


def _killed(pid_file_of: Callable[[Cloud], process.Running | None], mend: Callable[[Cloud], None]) -> Kind:
    def strike(cloud: Cloud, _victim: Guest | None) -> End | None:
        running = pid_file_of(cloud)
        if running is None:
            return MISSED
        os.kill(running.pid, signal.SIGKILL)
        return lambda: mend(cloud)

    return Kind(1.0, strike)


def _paused(pid_file_of: Callable[[Cloud], process.Running | None]) -> Kind:
    def strike(cloud: Cloud, _victim: Guest | None) -> End | None:
        running = pid_file_of(cloud)
        if running is None:
            return MISSED
        os.kill(running.pid, signal.SIGSTOP)
        return lambda: os.kill(running.pid, signal.SIGCONT)

    return Kind(1.0, strike)


def _by_hand(stops: str, *command: str) -> Kind:
    """A command on the host, of which {uid}, {tap} and {address} are the victim's."""

    def strike(cloud: Cloud, victim: Guest | None) -> End | None:
        if victim is None:
            return MISSED
        words = [word.format(uid=victim.uid, tap=victim.tap, address=victim.address) for word in command]
        return None if cloud.tries_on_host(*words) else MISSED

    return Kind(1.0, strike, stops)


def _qemu_killed(cloud: Cloud, victim: Guest | None) -> End | None:
    processes = () if victim is None else cloud.traces(victim).processes
    for pid in processes:
        os.kill(pid, signal.SIGKILL)
    return None if processes else MISSED


def _file(change: Callable[[pathlib.Path], object], below: str = "disks/{uid}/root.qcow2") -> Kind:
    """A change of a file of the victim in the agent's folder: of its root disk, or of what `below` says."""

    def strike(cloud: Cloud, victim: Guest | None) -> End | None:
        if victim is None:
            return MISSED
        file = cloud.host.folder / "corral" / below.format(uid=victim.uid)
        try:
            change(file)
        except FileNotFoundError:
            return MISSED
        return None

    return Kind(1.0, strike)


def _rebooted(cloud: Cloud, _victim: Guest | None) -> End | None:
    cloud.lab.reboot(1)
    return None


def _agent(cloud: Cloud) -> process.Running | None:
    return programs.find(cloud.host, AGENT)


def _libvirtd(cloud: Cloud) -> process.Running | None:
    return programs.find(cloud.host, libvirtd.NAME)


def _controller(cloud: Cloud) -> process.Running | None:
    return process.find(cloud.lab.folder.run / f"{CONTROLLER}.pid")


def _component(name: str) -> Callable[[Cloud], process.Running | None]:
    return lambda cloud: process.find(components.pid_file(cloud.lab.folder, name))


def _plane_up(cloud: Cloud) -> None:
    cloud.lab.control_plane().start(progress.silent())


_VIRSH = ("virsh", "--quiet", "--connect", "qemu:///system")

FAULTS: dict[str, Kind] = {
    "agent killed": _killed(_agent, lambda cloud: cloud.lab.start_agent(1)),
    "agent paused": _paused(_agent),
    "controller killed": _killed(_controller, lambda cloud: cloud.lab.start_controller()),
    "controller paused": _paused(_controller),
    "API server killed": _killed(_component(components.API_SERVER), _plane_up),
    "etcd killed": _killed(_component(components.ETCD), _plane_up),
    "API server paused": _paused(_component(components.API_SERVER)),
    "libvirtd killed": _killed(_libvirtd, lambda cloud: libvirtd.start(cloud.host)),
    "libvirtd paused": _paused(_libvirtd),
    "host rebooted": Kind(0.5, _rebooted, "all"),
    "QEMU killed": Kind(1.0, _qemu_killed, "victim"),
    "domain destroyed": _by_hand("victim", *_VIRSH, "destroy", "{uid}"),
    "domain undefined": _by_hand("none", *_VIRSH, "undefine", "{uid}"),
    "NIC detached": _by_hand("none", *_VIRSH, "detach-interface", "{uid}", "ethernet", "--live"),
    "disk renamed": _file(lambda disk: disk.rename(disk.with_name("old"))),
    "disk deleted": _file(lambda disk: disk.unlink()),
    "answers removed": _file(lambda answers: answers.unlink(), "dhcp/{uid}.json"),
    "tap deleted": _by_hand("none", "ip", "link", "delete", "{tap}"),
    "route deleted": _by_hand("none", "ip", "route", "delete", "{address}"),
    "neighbour deleted": _by_hand("none", "ip", "neighbour", "delete", "{address}", "dev", "{tap}"),
}
