"""How long a guest takes from `kubectl apply` to Ready and to its first answer, beside the same guest by QEMU alone.

Run by hand, as root, on an idle machine: `python tests/bench/bench_thread.py [guests]`. It brings up a lab of its own
and takes it down. The floor is one qemu-system-x86_64 a guest with the same kernel, a clone of the same disk and a tap,
on the same lab host, from the first start to the answer: what is on top of it is Corral, Kubernetes and libvirt.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent import futures

import rich.console
import rich.table

from corral.api import schema
from corral_drivers.seed import model as seed_model
from corral_drivers.seed import nocloud, port
from corral_drivers.seed import plan as seed_plan
from corral_lab import demo, errors, kubectl, objects, paths, progress
from corral_lab.guest import build
from corral_lab.host import programs
from corral_lab.lab import Lab
from corral_lab.options import Options

OPTIONS = Options(
    management=ipaddress.IPv4Network("100.91.0.0/24"),
    guests=ipaddress.IPv4Network("10.80.0.0/24"),
    loopbacks=ipaddress.IPv4Network("100.84.0.0/24"),
)
MEMORY = 96
FIRST = ipaddress.IPv4Address("10.80.0.200")
"""The floor's guests have addresses that the pool gives last."""
GATEWAY = "169.254.1.1"
WITHIN = 300.0


def through(api: kubectl.Kubectl, count: int) -> tuple[float, float]:
    """Seconds from the apply of `count` VirtualMachines to all Ready, and to all answering."""
    names = [f"bench-{number}" for number in range(count)]
    what = [f"vm.corral.dev/{name}" for name in names]
    spec = {"classRef": {"name": "bench"}, "imageRef": {"name": objects.IMAGE}, "terminationGracePeriodSeconds": 2}
    begun = time.monotonic()
    kind = {"apiVersion": schema.API_VERSION, "kind": "VirtualMachine"}
    api.apply(*(kind | {"metadata": {"name": name}, "spec": spec} for name in names))
    api.wait("condition=Ready", *what, seconds=WITHIN)
    ready = time.monotonic() - begun
    listed = api.get("vm.corral.dev")["items"]
    all_answer([one["status"]["placement"]["addresses"][0]["address"] for one in listed])
    answered = time.monotonic() - begun
    api.run("delete", *what)
    while api.get("instances.corral.dev", "--all-namespaces")["items"]:
        time.sleep(0.2)
    return ready, answered


def alone(lab: Lab, image: build.GuestImage, count: int) -> float:
    """Seconds from the start of the first of `count` QEMUs to all answering."""
    addresses = [str(FIRST + number) for number in range(count)]
    with prepared(lab, image, addresses) as commands:
        begun = time.monotonic()
        for name, command in commands.items():
            programs.start(lab.host(1), name, command)
        all_answer(addresses)
        return time.monotonic() - begun


@contextlib.contextmanager
def prepared(lab: Lab, image: build.GuestImage, addresses: Sequence[str]) -> Iterator[dict[str, list[str]]]:
    """Everything that these guests need but their QEMU, whose command lines it yields."""
    host = lab.host(1)
    folder = host.folder / "floor"
    folder.mkdir()
    seeds = nocloud.NoCloud(port.Settings(str(folder)))
    commands = {}
    taps = []
    for number, address in enumerate(addresses):
        name, tap, mac = f"floor-{number}", f"floor{number}", f"02:00:00:00:01:{number:02x}"
        taps.append(tap)
        disk = folder / f"{name}.qcow2"
        clone = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", str(image.root.path), str(disk)]
        subprocess.run(clone, check=True)
        asyncio.run(seeds.apply(seed_plan.Write(_seed(name, mac, address))))
        for step in (
            f"ip tuntap add dev {tap} mode tap",
            f"ip link set dev {tap} up",
            f"ip route add {address}/32 dev {tap}",
        ):
            subprocess.run(host.command(step.split()), check=True)
        commands[name] = _qemu(image, disk, seeds.path(name), tap, mac)
    try:
        yield commands
    finally:
        for name in commands:
            programs.stop(host, name)
        for tap in taps:
            subprocess.run(host.command(["ip", "link", "del", "dev", tap]), check=True)
        shutil.rmtree(folder)


def _seed(name: str, mac: str, address: str) -> seed_model.Seed:
    nic = seed_model.Nic(
        name="eth0",
        mac=mac,
        mtu=1500,
        addresses=(f"{address}/32",),
        routes=(seed_model.Route(to="default", via=GATEWAY),),
        dns_servers=(),
        search_domains=(),
    )
    return seed_model.Seed(
        owner=name, instance_id=name, hostname=name, nics=(nic,), ssh_authorized_keys=(), user_data=""
    )


def _qemu(image: build.GuestImage, disk: pathlib.Path, seed: str, tap: str, mac: str) -> list[str]:
    command = ["qemu-system-x86_64", "-machine", "pc", "-accel", "tcg,tb-size=32", "-m", str(MEMORY)]
    command += ["-nodefaults", "-no-user-config", "-display", "none"]
    command += ["-kernel", str(image.kernel.path), "-initrd", str(image.initramfs.path), "-append", image.command_line]
    command += ["-drive", f"file={disk},if=virtio", "-drive", f"file={seed},if=virtio,format=raw,readonly=on"]
    command += ["-netdev", f"tap,id=n,ifname={tap},script=no,downscript=no"]
    return [*command, "-device", f"virtio-net-pci,netdev=n,mac={mac},romfile=", "-serial", "stdio"]


def all_answer(addresses: Sequence[str]) -> None:
    """Ask all at once until each has answered."""
    with futures.ThreadPoolExecutor(len(addresses)) as pool:
        for answer in [pool.submit(demo.answers, address, within=WITHIN) for address in addresses]:
            answer.result()


def main(count: int) -> None:
    console = rich.console.Console()
    with tempfile.TemporaryDirectory(prefix="corral-bench-") as folder:
        lab = Lab(paths.LabDir.at(pathlib.Path(folder, "lab")), paths.Cache.find(os.environ))
        try:
            api = lab.up(OPTIONS, progress.Steps(console))
            api.apply(
                objects.vm_class("bench", f"{MEMORY}Mi"),
                objects.pool("default", str(OPTIONS.guests)),
                objects.network("default", "default"),
            )
            image = build.provide(lab.cache, progress.silent())
            through(api, 1)  # the first fetches the image
            table = rich.table.Table(
                "guests", "apply → Ready, s", "apply → HTTP, s", "QEMU alone → HTTP, s", "HTTP/QEMU alone"
            )
            for number in (1, count):
                ready, answered = through(api, number)
                floor = alone(lab, image, number)
                table.add_row(str(number), f"{ready:.1f}", f"{answered:.1f}", f"{floor:.1f}", f"{answered / floor:.2f}")
            console.print(table)
        finally:
            lab.down(keep=False)


if __name__ == "__main__":
    try:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
    except errors.LabError as error:
        sys.exit(f"{error.sentence} {error.next_step}")
