"""A host's own libvirtd: its configuration, its start, its readiness.

`corral lab up` and the tests' fixtures call `start` on a host that is up. The configuration is for a lab only: it takes
away the confinement of guests that a real host gets from its distribution, because it can't be had in namespaces.
"""

from __future__ import annotations

import shutil
import time
import uuid

from corral_lab import errors, files, process
from corral_lab.host import namespace, programs

NAME = "libvirtd"
SOCKET = "/run/libvirt/libvirt-sock"
READY_WITHIN = 30.0

_HOSTS = uuid.UUID("6f0c5f0e-0f0b-5d0c-9a51-0d7b6c8b5a3e")


def start(host: namespace.Host) -> int:
    """Make libvirtd run on the host and answer, and return its pid. Nothing where it does.

    Raises `errors.LabError` with its last words where it stops or does not answer in time.
    """
    files.replace(host.own("/etc/libvirt") / "qemu.conf", qemu_conf())
    files.replace(host.own("/etc/libvirt") / "libvirtd.conf", libvirtd_conf(host_uuid(host)))
    program = shutil.which(NAME) or NAME
    argv = [program, "--pid-file=/run/libvirtd.pid", "--config=/etc/libvirt/libvirtd.conf"]
    pid = programs.start(host, NAME, argv)
    deadline = time.monotonic() + READY_WITHIN
    while time.monotonic() < deadline and programs.find(host, NAME):
        try:
            programs.connect(host, SOCKET, timeout=1.0).close()
        except OSError:
            time.sleep(0.02)
        else:
            return pid
    raise errors.LabError(
        f"libvirtd of host {host.name} does not answer. Its last words:\n{process.tail(host.log(NAME))}",
        next_step=f"See {host.log(NAME)}.",
    )


def stop(host: namespace.Host) -> None:
    """End libvirtd alone: the guests run on."""
    programs.stop(host, NAME)


def host_uuid(host: namespace.Host) -> uuid.UUID:
    """The same for life, and another one for every host: a machine's own would be the same on all."""
    return uuid.uuid5(_HOSTS, f"{host.lab}/{host.name}")


def libvirtd_conf(identity: uuid.UUID) -> str:
    """libvirtd.conf: sockets of root's alone, without polkit, which is not there in a namespace."""
    return (
        f'host_uuid = "{identity}"\n'
        'unix_sock_ro_perms = "0700"\n'
        'unix_sock_rw_perms = "0700"\n'
        'auth_unix_ro = "none"\n'
        'auth_unix_rw = "none"\n'
        'log_outputs = "3:stderr"\n'
    )


def qemu_conf() -> str:
    """qemu.conf: QEMU as root, without what needs a machine of its own: devices' namespaces, cgroups, virtlogd."""
    return (
        'user = "root"\n'
        'group = "root"\n'
        "dynamic_ownership = 0\n"
        "remember_owner = 0\n"
        'security_driver = "none"\n'
        "namespaces = []\n"
        "cgroup_controllers = []\n"
        "seccomp_sandbox = 0\n"
        'stdio_handler = "file"\n'
    )
