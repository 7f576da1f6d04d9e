"""The guest's image as a hypervisor meets it: built, booted under QEMU on a lab host, asked over its address."""

from __future__ import annotations

import io
import ipaddress
import json
import os
import pathlib
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pycdlib
import pytest

from corral_lab import errors, paths, process, progress
from corral_lab.guest import build
from corral_lab.host import lifecycle, management, namespace, programs

pytestmark = pytest.mark.lab

LAB_ADDRESS = ipaddress.IPv4Address("100.127.21.1")
HOST_ADDRESS = ipaddress.IPv4Address("100.127.21.11")
HOSTS = ipaddress.IPv4Network("100.127.21.0/24")
GUESTS = ipaddress.IPv4Network("10.254.21.0/24")
ADDRESS = "10.254.21.5"
MAC = "52:54:00:15:00:05"
NETWORK_CONFIG = f"""\
version: 2
ethernets:
  eth0:
    match:
      macaddress: "{MAC}"
    set-name: eth0
    mtu: 1400
    addresses:
    - {ADDRESS}/32
    - fd00:21::5/128
    routes:
    - to: 0.0.0.0/0
      via: 169.254.1.1
      on-link: true
    - to: ::/0
      via: fe80::1
      on-link: true
"""
USER_DATA = "#cloud-config\nmessage: hello\n"


@dataclass(frozen=True)
class Guest:
    """A guest that runs on a lab host, reached over its own address from this machine."""

    host: namespace.Host
    pid: int

    @property
    def console(self) -> pathlib.Path:
        return self.host.log("qemu")

    def ready_lines(self) -> list[str]:
        text = self.console.read_text(errors="replace")
        return [line for line in text.splitlines() if "corral-guest: ready" in line]

    def get(self, path: str, body: bytes | None = None) -> str:
        with urllib.request.urlopen(f"http://{ADDRESS}{path}", data=body, timeout=5) as answer:
            return str(answer.read().decode())

    def monitor(self, command: str) -> None:
        with programs.connect(self.host, "/run/monitor.sock", timeout=5) as monitor:
            _prompt(monitor)
            monitor.sendall(command.encode() + b"\n")
            _prompt(monitor)


def _prompt(monitor: socket.socket) -> None:
    """QEMU forgets a command whose sender leaves before it is taken; a prompt, or QEMU's own end, says that it was."""
    said = b""
    while not said.endswith(b"(qemu) ") and (part := monitor.recv(4096)):
        said += part


def _until(true: Callable[[], object], *, within: float = 30.0) -> None:
    deadline = time.monotonic() + within
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def image() -> build.GuestImage:
    return build.provide(paths.Cache.find(os.environ), progress.silent())


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[namespace.Host]:
    host = namespace.Host("guest-test", "g1", tmp_path_factory.mktemp("guest") / "g1")
    machine = management.Management("guest-test", LAB_ADDRESS)
    try:
        lifecycle.up(host)
        machine.up(HOSTS)
        machine.connect(host, HOST_ADDRESS)
        way = ["via", str(HOST_ADDRESS), "dev", management.machine_interface(host), "src", str(LAB_ADDRESS)]
        subprocess.run(["ip", "route", "replace", str(GUESTS), *way], check=True)
        _tap(host)
        yield host
    finally:
        management.disconnect(host)
        lifecycle.down(host)
        machine.down()


def _tap(host: namespace.Host) -> None:
    for command in (
        "ip address add 169.254.1.1/32 dev lo",
        "ip tuntap add dev tap0 mode tap",
        "ip link set dev tap0 up",
        f"ip route add {ADDRESS}/32 dev tap0",
    ):
        subprocess.run(host.command(command.split()), check=True)


def _seed(path: pathlib.Path) -> None:
    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident="cidata")
    meta_data = "instance-id: test-1\nlocal-hostname: web-1\n"
    for name, text in {"meta-data": meta_data, "user-data": USER_DATA, "network-config": NETWORK_CONFIG}.items():
        short = name.upper().replace("-", "_")
        data = text.encode()
        iso.add_fp(io.BytesIO(data), len(data), f"/{short}.;1", rr_name=name, joliet_path=f"/{name}")
    iso.write(str(path))
    iso.close()


@pytest.fixture
def guest(host: namespace.Host, image: build.GuestImage) -> Iterator[Guest]:
    """A guest with a fresh disk."""
    disk, seed = host.folder / "root.qcow2", host.folder / "seed.iso"
    _seed(seed)
    clone = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", str(image.root.path), str(disk)]
    subprocess.run(clone, check=True)
    argv = ["qemu-system-x86_64", "-machine", "pc", "-accel", "tcg,tb-size=32", "-m", "128"]
    argv += ["-nodefaults", "-no-user-config", "-display", "none"]
    argv += ["-kernel", str(image.kernel.path), "-initrd", str(image.initramfs.path), "-append", image.command_line]
    argv += ["-drive", f"file={disk},if=virtio", "-drive", f"file={seed},if=virtio,format=raw,readonly=on"]
    argv += ["-netdev", "tap,id=n,ifname=tap0,script=no,downscript=no"]
    argv += ["-device", f"virtio-net-pci,netdev=n,mac={MAC},romfile="]
    argv += ["-serial", "stdio", "-monitor", "unix:/run/monitor.sock,server,nowait"]
    try:
        started = Guest(host, programs.start(host, "qemu", argv))
        _until(started.ready_lines)
        yield started
    finally:
        programs.stop(host, "qemu")
        host.log("qemu").unlink(missing_ok=True)
        disk.unlink()


def test_the_guest_is_what_its_seed_says(guest: Guest) -> None:
    _until(lambda: _answers(guest))

    meta = json.loads(guest.get("/meta.json"))
    assert guest.get("/") == "web-1\n"
    assert guest.get("/user-data") == USER_DATA
    assert meta["hostname"] == "web-1"
    assert meta["instance_id"] == "test-1"
    assert meta["boots"] == 1
    assert meta["addresses"] == [f"{ADDRESS}/32", "fd00:21::5/128"]
    assert meta["cpus"] == 1
    assert meta["root_bytes"] == build.ROOT_BYTES
    assert 64 * 1024 < meta["mem_kb"] < 128 * 1024


def test_what_is_written_outlives_resets_and_power_cuts(guest: Guest) -> None:
    _until(lambda: _answers(guest))
    guest.get("/cgi-bin/write?name=note.txt", b"kept")

    guest.get("/cgi-bin/power?reboot", b"")
    _until(lambda: len(guest.ready_lines()) == 2)
    guest.monitor("system_reset")
    _until(lambda: len(guest.ready_lines()) == 3)
    _until(lambda: _answers(guest))

    assert guest.get("/data/note.txt") == "kept"
    assert json.loads(guest.get("/meta.json"))["boots"] == 3


def test_the_power_button_ends_the_guest_with_a_clean_disk(guest: Guest) -> None:
    _until(lambda: _answers(guest))

    guest.monitor("system_powerdown")
    _until(lambda: programs.find(guest.host, "qemu") is None, within=10)

    raw = guest.host.folder / "root.raw"
    subprocess.run(["qemu-img", "convert", "-O", "raw", str(guest.host.folder / "root.qcow2"), str(raw)], check=True)
    checked = subprocess.run(["e2fsck", "-n", str(raw)], capture_output=True, text=True, check=False)
    raw.unlink()
    assert checked.returncode == 0, checked.stdout
    assert "recovering journal" not in checked.stdout


def test_a_panic_is_a_reset(guest: Guest) -> None:
    _until(lambda: _answers(guest))

    guest.get("/cgi-bin/power?panic", b"")

    _until(lambda: len(guest.ready_lines()) == 2)


def test_a_bad_name_is_refused(guest: Guest) -> None:
    _until(lambda: _answers(guest))

    with pytest.raises(urllib.error.HTTPError) as refused:
        guest.get("/cgi-bin/write?name=../../etc/passwd", b"x")

    refused.value.close()
    assert refused.value.code == 400


def test_images_are_built_once_and_whole(
    image: build.GuestImage, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = build.provide(paths.Cache.find(os.environ), progress.silent())
    assert again == image

    # Without its program, a build says which package is lacking, and leaves nothing.
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(errors.LabError) as refused:
        build.provide(paths.Cache(tmp_path / "cache"), progress.silent())
    assert "mmdebstrap" in refused.value.next_step
    assert [path.name for path in (tmp_path / "cache/guest").iterdir()] == ["lock"]


def test_the_image_server_serves_the_root_disk(image: build.GuestImage, tmp_path: pathlib.Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as chosen:
        port = chosen.getsockname()[1]
    argv = (
        sys.executable,
        "-m",
        "corral_lab.guest.serve",
        f"--folder={image.folder}",
        "--address=127.0.0.1",
        f"--port={port}",
    )
    daemon = process.Daemon("images", argv, pid_file=tmp_path / "images.pid", log=tmp_path / "images.log")
    process.start(daemon)
    try:
        _until(lambda: _fetch(port) == image.root.path.read_bytes(), within=10)
    finally:
        process.stop(daemon.pid_file)


def _fetch(port: int) -> bytes:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/root.qcow2", timeout=5) as answer:
            return bytes(answer.read())
    except urllib.error.URLError:
        return b""


def _answers(guest: Guest) -> bool:
    try:
        return guest.get("/") != ""
    except (urllib.error.URLError, OSError):
        return False
