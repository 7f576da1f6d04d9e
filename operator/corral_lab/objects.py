"""The objects that a lab writes itself: its hosts, and its image, whose sums exist only after it was built."""

from __future__ import annotations

from typing import Any

from corral.api import schema
from corral_lab import options
from corral_lab.fabric import fabric
from corral_lab.guest import build
from corral_lab.guest import debian as debian_image

IMAGE = "lab"


def host(name: str, number: int, loopback: options.Loopback) -> dict[str, Any]:
    """The Host of this number, from 1, which announces itself and its guests to both spines."""
    bgp = {
        "asn": 4200000010 + number,
        "addresses": [str(loopback.v4), str(loopback.v6)],
        "neighbors": [{"interface": fabric.uplink(spine)} for spine in range(1, options.SPINES + 1)],
    }
    return _object("Host", name, {"bgp": bgp})


def image(built: build.GuestImage, server: str) -> dict[str, Any]:
    """The ClusterImage `lab`: the small guest, served by the lab."""
    files = {part: getattr(built, part) for part in ("root", "kernel", "initramfs")}
    sources = {part: {"url": f"{server}/{file.path.name}", "sha256": file.sha256} for part, file in files.items()}
    boot = {part: sources[part] for part in ("kernel", "initramfs")}
    spec = {
        "source": sources["root"],
        "format": "qcow2",
        "directBoot": {**boot, "commandLine": built.command_line},
    }
    return _object("ClusterImage", IMAGE, spec)


def debian(built: build.Artifact, server: str) -> dict[str, Any]:
    """The ClusterImage `debian-12`: a whole distribution, whose boot loader BIOS and UEFI start alike."""
    source = {"url": f"{server}/{built.path.name}", "sha256": built.sha256}
    return _object("ClusterImage", debian_image.NAME, {"source": source, "format": "qcow2"})


def vm_class(name: str, memory: str) -> dict[str, Any]:
    """A VirtualMachineClass of one CPU. A lab's hosts share the machine's few CPUs, and have guests by the dozen."""
    return _object("VirtualMachineClass", name, {"cpu": 1, "memory": memory, "overcommit": {"cpu": 64}})


def pool(name: str, *prefixes: str) -> dict[str, Any]:
    """An IPPool."""
    return _object("IPPool", name, {"prefixes": list(prefixes)})


def network(name: str, *pools: str) -> dict[str, Any]:
    """A ClusterNetwork."""
    return _object("ClusterNetwork", name, {"poolRefs": [{"name": one} for one in pools]})


def _object(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": schema.API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}
