"""What the hypervisor's contract runs on: a simulated machine, and a lab host with a libvirtd of its own.

A rig is the world around the driver, which tests change behind its back. Both rigs answer alike.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import libvirt

from corral_drivers.hypervisor import port, simulated
from corral_drivers.hypervisor.libvirt_qemu import driver, eventloop, render
from corral_drivers.hypervisor.model import Disk, Domain, Interface, Mark
from corral_lab.host import libvirtd, lifecycle, namespace

CLOUD, HOST = "cloud-1", "host-1"


class Rig(Protocol):
    """A host with a hypervisor; `close` ends what a test left on it."""

    def settings(self, *, cloud: str = CLOUD, host: str = HOST) -> port.Settings: ...

    def driver(self, *, cloud: str = CLOUD, host: str = HOST) -> port.Hypervisor:
        """A driver that was never there before."""
        ...

    def domain(self, name: str) -> Domain:
        """A domain of a small guest that could be started here: its disk and its tap are there."""
        ...

    def plant(self, domain: Domain, *, mark: Mark | None) -> None:
        """Define a domain behind the driver's back."""
        ...

    def kill(self, uuid: str, pid: int | None) -> None: ...

    def pause(self, uuid: str) -> None: ...

    def undefine(self, uuid: str) -> None: ...

    def names(self) -> set[str]:
        """All domains that are defined or live, whosever."""
        ...

    def close(self) -> None: ...


def sketch(name: str, folder: Path, number: int) -> Domain:
    """A domain with one disk and one NIC."""
    return Domain(
        uuid=str(uuid.uuid5(uuid.NAMESPACE_DNS, name)),
        name=name,
        mark=Mark(CLOUD, HOST, "tenant", name, f"uid-{name}", 1),
        cpus=1,
        memory=32 << 20,
        machine="pc",
        accelerator="tcg",
        console_log=str(folder / f"{name}.log"),
        disks=(Disk("vda", str(folder / f"{name}.qcow2"), "qcow2", 5, "root"),),
        interfaces=(Interface(f"hv{number}", f"52:54:00:00:01:{number % 256:02x}", 1450, 3),),
    )


class SimulatedRig:
    """A machine in memory."""

    def __init__(self) -> None:
        self.machine = simulated.Machine()
        self._numbers = itertools.count()

    def settings(self, *, cloud: str = CLOUD, host: str = HOST) -> port.Settings:
        return port.Settings(cloud=cloud, host=host)

    def driver(self, *, cloud: str = CLOUD, host: str = HOST) -> port.Hypervisor:
        return simulated.Simulated(self.settings(cloud=cloud, host=host), machine=self.machine)

    def domain(self, name: str) -> Domain:
        return sketch(name, Path("/disks"), next(self._numbers))

    def plant(self, domain: Domain, *, mark: Mark | None) -> None:
        self.machine.put(domain, mark=mark)

    def kill(self, uuid: str, pid: int | None) -> None:
        assert pid is not None
        self.machine.end(uuid)

    def pause(self, uuid: str) -> None:
        self.machine.pause(uuid)

    def undefine(self, uuid: str) -> None:
        self.machine.guests[uuid].persistent = None

    def names(self) -> set[str]:
        return {guest.name for guest in self.machine.guests.values()}

    def close(self) -> None:
        self.machine.guests.clear()


class LibvirtRig:
    """A lab host; its libvirtd can be stopped and started."""

    def __init__(self, host: namespace.Host) -> None:
        self.host = host
        self._numbers = itertools.count()
        self._taps: list[str] = []
        eventloop.ensure()
        self.link = libvirt.open(host.libvirt_uri)

    def settings(self, *, cloud: str = CLOUD, host: str = HOST) -> port.Settings:
        return port.Settings(cloud=cloud, host=host, uri=self.host.libvirt_uri)

    def driver(self, *, cloud: str = CLOUD, host: str = HOST) -> port.Hypervisor:
        return driver.LibvirtQemu(self.settings(cloud=cloud, host=host))

    def domain(self, name: str) -> Domain:
        domain = sketch(name, self.host.folder, next(self._numbers))
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", domain.disks[0].path, "16M"], check=True)
        tap = domain.interfaces[0].tap
        subprocess.run(self.host.command(["ip", "tuntap", "add", "dev", tap, "mode", "tap"]), check=True)
        self._taps.append(tap)
        return domain

    def plant(self, domain: Domain, *, mark: Mark | None) -> None:
        document = render.render(dataclasses.replace(domain, mark=mark or domain.mark))
        if mark is None:
            before, _, rest = document.partition("<metadata>")
            document = before + rest.partition("</metadata>")[2]
        self.link.defineXML(document)

    def kill(self, uuid: str, pid: int | None) -> None:
        assert pid is not None
        assert uuid.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
        os.kill(pid, signal.SIGKILL)

    def pause(self, uuid: str) -> None:
        self.link.lookupByUUIDString(uuid).suspend()

    def undefine(self, uuid: str) -> None:
        self.link.lookupByUUIDString(uuid).undefine()

    def names(self) -> set[str]:
        return {found.name() for found in self.link.listAllDomains()}

    def close(self) -> None:
        if not self.link.isAlive():
            self.link.close()
            self.link = libvirt.open(self.host.libvirt_uri)
        for found in self.link.listAllDomains():
            with contextlib.suppress(libvirt.libvirtError):
                found.destroy()
            with contextlib.suppress(libvirt.libvirtError):
                found.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_NVRAM)
        for tap in self._taps:
            subprocess.run(self.host.command(["ip", "link", "del", "dev", tap]), check=True)
        self.link.close()


@contextlib.contextmanager
def lab_host(folder: Path) -> Iterator[namespace.Host]:
    """A host with libvirtd for a run of tests; nothing of it is left."""
    host = namespace.Host(lab=f"hv-{os.getpid()}", name="h1", folder=folder)
    try:
        lifecycle.up(host)
        libvirtd.start(host)
        yield host
    finally:
        lifecycle.down(host)


async def eventually(question: Callable[[], bool], *, within: float = 15.0) -> None:
    """Wait until it is true; fail after `within` seconds."""
    deadline = time.monotonic() + within
    while not question():
        assert time.monotonic() < deadline, "it never became true"
        await asyncio.sleep(0.02)
