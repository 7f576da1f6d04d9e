"""Lab hosts: several on one machine, each with its own libvirtd, and nothing of them left afterwards."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import pathlib
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from corral_lab import errors, process
from corral_lab.host import libvirtd, lifecycle, management, namespace, programs

pytestmark = pytest.mark.lab

LAB = "host-test"
LAB_ADDRESS = ipaddress.IPv4Address("100.127.22.1")
HOSTS = ipaddress.IPv4Network("100.127.22.0/24")
ADDRESSES = {"n1": ipaddress.IPv4Address("100.127.22.11"), "n2": ipaddress.IPv4Address("100.127.22.12")}
DOMAIN = """\
<domain type='qemu'>
  <name>idle</name>
  <memory unit='MiB'>16</memory>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <devices><emulator>/usr/bin/qemu-system-x86_64</emulator></devices>
</domain>
"""


def _virsh(host: namespace.Host, *arguments: str) -> str:
    command = ["virsh", "--quiet", "--connect", host.libvirt_uri, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _on(host: namespace.Host, *command: str) -> str:
    return subprocess.run(host.command(command), capture_output=True, text=True, check=True).stdout.strip()


def _start_guest(host: namespace.Host) -> int:
    xml = host.folder / "idle.xml"
    xml.write_text(DOMAIN)
    _virsh(host, "create", str(xml), "--paused")
    return _guest(host)


def _guest(host: namespace.Host) -> int:
    return int((host.own("/run") / "libvirt/qemu/idle.pid").read_text())


def _until(true: Callable[[], object], *, within: float = 10.0) -> None:
    deadline = time.monotonic() + within
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def _alive(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


@contextlib.contextmanager
def _host(name: str, folder: pathlib.Path) -> Iterator[namespace.Host]:
    host = namespace.Host(LAB, name, folder / name)
    try:
        lifecycle.up(host)
        libvirtd.start(host)
        yield host
    finally:
        lifecycle.down(host)


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[namespace.Host, namespace.Host]]:
    folder = tmp_path_factory.mktemp("hosts")
    with _host("n1", folder) as one, _host("n2", folder) as two:
        yield one, two


@pytest.fixture
def joined(hosts: tuple[namespace.Host, namespace.Host]) -> Iterator[management.Management]:
    machine = management.Management(LAB, LAB_ADDRESS)
    try:
        machine.up(HOSTS)
        for host in hosts:
            machine.connect(host, ADDRESSES[host.name])
        yield machine
    finally:
        for host in hosts:
            management.disconnect(host)
        machine.down()


def test_two_hosts_have_a_libvirtd_each(hosts: tuple[namespace.Host, namespace.Host]) -> None:
    one, two = hosts

    identities = [re.findall(r"<uuid>(.*?)</uuid>", _virsh(host, "capabilities"))[0] for host in hosts]
    assert identities == [str(libvirtd.host_uuid(one)), str(libvirtd.host_uuid(two))]

    pid = _start_guest(one)
    assert "idle" in _virsh(one, "list", "--all")
    assert _virsh(two, "list", "--all") == ""
    assert pid in one.processes()
    assert pid not in two.processes()
    _virsh(one, "destroy", "idle")
    # Its supervisor takes QEMU in and reaps it: no zombie is left to the machine.
    _until(lambda: not pathlib.Path(f"/proc/{pid}").exists())


def test_a_host_has_names_files_and_interfaces_of_its_own(hosts: tuple[namespace.Host, namespace.Host]) -> None:
    for host in hosts:
        assert _on(host, "hostname") == host.name
        assert _on(host, "ls", "/sys/class/net") == "lo"
        assert _on(host, "cat", "/proc/sys/net/ipv4/ip_forward") == "1"
        assert _on(host, "virsh", "--quiet", "--connect", "qemu:///system", "list") == ""
        shown = _on(host, "cat", "/proc/self/mountinfo")
        assert "nsfs" not in shown
        cgroups = [
            line for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines() if " - cgroup" in line
        ]
        assert sum(" - cgroup" in line for line in shown.splitlines()) == len(cgroups)


def test_libvirtd_is_killed_and_started_again_alone(hosts: tuple[namespace.Host, namespace.Host]) -> None:
    one, two = hosts
    guest = _start_guest(one)
    before, other = programs.find(one, libvirtd.NAME), programs.find(two, libvirtd.NAME)
    assert before is not None

    os.kill(before.pid, signal.SIGKILL)
    _until(lambda: programs.find(one, libvirtd.NAME) is None)
    after = libvirtd.start(one)

    assert after != before.pid
    assert libvirtd.start(one) == after
    assert "idle" in _virsh(one, "list")
    assert _guest(one) == guest
    assert _alive(guest)
    assert programs.find(two, libvirtd.NAME) == other
    _virsh(one, "destroy", "idle")


def test_a_killed_supervisor_finds_its_host_again(hosts: tuple[namespace.Host, namespace.Host]) -> None:
    one, _ = hosts
    running = libvirtd.start(one)
    supervisor = process.find(one.supervisor)
    assert supervisor is not None

    os.kill(supervisor.pid, signal.SIGKILL)
    _until(lambda: process.find(one.supervisor) is None)
    with pytest.raises(errors.LabError, match="is down"):
        one.command(["true"])
    lifecycle.up(one)

    assert libvirtd.start(one) == running
    assert _on(one, "hostname") == one.name
    assert _on(one, "virsh", "--quiet", "--connect", "qemu:///system", "list") == ""


def test_the_machine_and_its_hosts_reach_each_other(
    hosts: tuple[namespace.Host, namespace.Host], joined: management.Management
) -> None:
    for host in hosts:
        subprocess.run(["ping", "-c1", "-W2", str(ADDRESSES[host.name])], check=True, capture_output=True)
        _on(host, "ping", "-c1", "-W2", str(LAB_ADDRESS))
    # All of it again changes nothing.
    routes = _routes()
    joined.up(HOSTS)
    joined.connect(hosts[0], ADDRESSES["n1"])
    assert _routes() == routes


def test_a_prefix_that_is_taken_is_refused(joined: management.Management) -> None:
    # Another lab's management network finds that its prefix is taken, this lab's own does not.
    with pytest.raises(errors.LabError, match="management prefix"):
        management.Management("other", ipaddress.IPv4Address("100.127.22.2")).up(HOSTS)
    joined.check(HOSTS, [])


def _routes() -> list[str]:
    shown = subprocess.run(["ip", "route"], capture_output=True, text=True, check=True).stdout
    return sorted(line for line in shown.splitlines() if "100.127.22." in line)


@pytest.mark.parametrize("killed", [False, True], ids=["orderly", "supervisor-killed"])
def test_down_leaves_nothing(tmp_path: pathlib.Path, killed: bool) -> None:
    machine = management.Management(LAB, LAB_ADDRESS)
    with _host("n3", tmp_path) as host:
        machine.up(HOSTS)
        machine.connect(host, ADDRESSES["n1"])
        _start_guest(host)
        programs.start(host, "stubborn", ["sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"])
        pids, network = host.processes(), host.network_file.stat().st_ino
        assert len(pids) >= 4
        assert _routes()
        if killed:
            os.kill(_pid(host), signal.SIGKILL)

        lifecycle.down(host)
        management.disconnect(host)
        machine.down()
        lifecycle.down(host)

        assert not any(map(_alive, pids))
        assert not host.folder.exists()
        assert not pathlib.Path("/run/netns", host.network_namespace).is_symlink()
        assert _routes() == []
        assert management.machine_interface(host) not in os.listdir("/sys/class/net")
        assert not [line for line in _mounts() if str(tmp_path) in line or f"net:[{network}]" in line]
        assert network not in _network_namespaces()


def test_a_stopped_host_keeps_its_files_and_comes_back(tmp_path: pathlib.Path) -> None:
    with _host("n4", tmp_path) as host:
        kept = host.own("/var/lib/libvirt") / "kept"
        kept.write_text("x")

        lifecycle.stop(host)
        assert host.processes() == []
        lifecycle.up(host)
        libvirtd.start(host)

        assert _on(host, "cat", "/var/lib/libvirt/kept") == "x"
        assert _virsh(host, "list") == ""


def _pid(host: namespace.Host) -> int:
    running = process.find(host.supervisor)
    assert running is not None
    return running.pid


def _mounts() -> list[str]:
    """Every mount of every mount namespace on this machine."""
    found: set[str] = set()
    for table in pathlib.Path("/proc").glob("[0-9]*/mountinfo"):
        with contextlib.suppress(OSError):
            found.update(table.read_text().splitlines())
    return sorted(found)


def _network_namespaces() -> set[int]:
    found = set()
    for link in pathlib.Path("/proc").glob("[0-9]*/ns/net"):
        with contextlib.suppress(OSError):
            found.add(link.stat().st_ino)
    return found
