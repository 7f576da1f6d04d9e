"""Builds the small guest's images once into the cache, from the machine's own apt sources.

`corral lab up`, the demo and the tests' fixtures call `provide`. Everything the images are made of is in this package
and in two Debian packages; their folder is named by a key of the recipe, so a changed recipe is a new folder, and an
unchanged one costs nothing. A build that is interrupted leaves nothing but a folder that the next one removes.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
import platform
import shutil
import tempfile
from dataclasses import dataclass

from corral_lab import errors, files, paths, progress
from corral_lab.guest import cpio, debootstrap, modules

COMMAND_LINE = "console=ttyS0 quiet panic=1 nokaslr mitigations=off no_timer_check noreplace-smp cryptomgr.notests"
"""How the guest's kernel is booted: console on the serial port, and a panic that ends in a reset within a second.

Of the rest, each was measured under emulation: together they take 0.6 of 3.3 s, and `nokaslr` alone 20 MiB.
"""

ROOT_BYTES = 128 << 20
ROOT_LABEL = "corral-root"

_KERNEL_PACKAGES = {"debian": "linux-image-cloud-amd64", "ubuntu": "linux-image-virtual"}
_HERE = pathlib.Path(__file__).parent
_APPLETS = ("httpd", "mount", "sh")
"""The programs that need a name in /bin: this busybox's shell knows the others itself, once /proc is mounted."""

_FOLDERS = ("bin", "dev", "disk", "etc", "etc/corral", "etc/corral/cgi", "lib", "lib/modules", "proc", "run", "sys")


@dataclass(frozen=True, slots=True)
class Artifact:
    """One file that was built: where it is, its SHA-256 in hex, its size in bytes."""

    path: pathlib.Path
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class GuestImage:
    """The small guest: what to boot, and the disk that clones are made of (qcow2, ext4 labelled `corral-root`)."""

    kernel: Artifact
    initramfs: Artifact
    root: Artifact
    command_line: str
    release: str
    """The kernel's release, such as `6.1.0-56-cloud-amd64`."""

    @property
    def folder(self) -> pathlib.Path:
        return self.root.path.parent


@dataclass(frozen=True, slots=True)
class Distribution:
    """The Debian or Ubuntu release that this machine runs, whose packages the guest is made of."""

    id: str
    codename: str

    @property
    def packages(self) -> tuple[str, ...]:
        return (_KERNEL_PACKAGES[self.id], "busybox-static")


def key(distribution: Distribution) -> str:
    """Twelve hex digits that change with the recipe: this package's sources and scripts, and the distribution."""
    digest = hashlib.sha256(f"{distribution.id} {distribution.codename}".encode())
    sources = (_HERE / name for name in ("build.py", "cpio.py", "debootstrap.py", "modules.py"))
    for path in sorted([*sources, *(_HERE / "files").rglob("*")]):
        if path.is_file():
            digest.update(f"\0{path.relative_to(_HERE)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def provide(cache: paths.Cache, steps: progress.Steps) -> GuestImage:
    """The images of this recipe: out of the cache, or built now, which needs root, apt's sources, 200 MB and a moment.

    Raises `errors.LabError` where they can't be built, such as for a program that is missing, with its package.
    """
    distribution = _distribution()
    folder = cache.guest / key(distribution)
    # Two labs that start at once must not build the same thing twice: the second waits, and finds it there.
    with files.hold(cache.guest / "lock"):
        if not folder.exists():
            debootstrap.check_programs(debootstrap.PROGRAMS)
            for stale in cache.guest.glob("build-*"):
                shutil.rmtree(stale)
            with steps.step("guest images", hint="ten seconds, and a download of 40 MB") as step:
                _build(folder, distribution, step)
    return _read(folder)


def load(cache: paths.Cache, name: str) -> GuestImage | None:
    """The images of the folder `name` of the cache, which may be an older recipe's; None where they are not there."""
    folder = cache.guest / name
    return _read(folder) if folder.exists() else None


def is_newest(image: GuestImage) -> bool:
    """Whether the images are of the present recipe."""
    return image.folder.name == key(_distribution())


def _build(folder: pathlib.Path, distribution: Distribution, step: progress.Step) -> None:
    with tempfile.TemporaryDirectory(prefix="build-", dir=folder.parent) as scratch:
        made = pathlib.Path(scratch, "made")
        made.mkdir()
        _make(made, pathlib.Path(scratch), distribution, step)
        # Last, and in one step: the folder is there whole or not at all.
        made.rename(folder)


def _make(made: pathlib.Path, scratch: pathlib.Path, distribution: Distribution, step: progress.Step) -> None:
    step.note(f"unpacking {' and '.join(distribution.packages)} of {distribution.id} {distribution.codename}")
    unpacked = scratch / "root"
    _unpack(unpacked, scratch, distribution)
    kernel = _newest_kernel(unpacked)
    release = kernel.name.removeprefix("vmlinuz-")

    step.note(f"packing the initramfs for {release}")
    shutil.copyfile(kernel, made / "vmlinuz")
    busybox = next(path for path in (unpacked / "bin/busybox", unpacked / "usr/bin/busybox") if path.exists())
    loaded = modules.collect(next(unpacked.glob(f"**/lib/modules/{release}")))
    (made / "initramfs").write_bytes(initramfs(busybox.read_bytes(), loaded))

    step.note(f"making the root disk, {ROOT_BYTES >> 20} MiB")
    _root_disk(made / "root.qcow2", scratch)
    sums = {
        name: hashlib.sha256((made / name).read_bytes()).hexdigest() for name in ("vmlinuz", "initramfs", "root.qcow2")
    }
    (made / "guest.json").write_text(
        json.dumps({"release": release, "commandLine": COMMAND_LINE, "sha256": sums}, indent=2)
    )


def initramfs(busybox: bytes, loaded: dict[str, bytes]) -> bytes:
    """The archive that the kernel boots into: busybox, the modules in the order to load them, and our scripts.

    Not compressed: unpacking it would cost an emulated processor more time than the bytes saved are worth.
    """
    scripts = _HERE / "files"
    entries = [cpio.directory(folder) for folder in _FOLDERS]
    entries.append(cpio.file("bin/busybox", busybox, executable=True))
    entries.append(cpio.symlink("init", "bin/busybox"))
    entries.append(cpio.symlink("sbin", "bin"))
    entries += [cpio.symlink(f"bin/{applet}", "busybox") for applet in _APPLETS]
    entries += [cpio.file(f"lib/modules/{name}.ko", data) for name, data in loaded.items()]
    entries.append(cpio.file("lib/modules/order", "".join(f"{name}.ko\n" for name in loaded).encode()))
    entries.append(cpio.file("etc/inittab", (scripts / "inittab").read_bytes()))
    entries.append(cpio.file("etc/httpd.conf", (scripts / "httpd.conf").read_bytes()))
    for script in (
        "up",
        "ask",
        "told",
        "disks",
        "flatten.awk",
        "network",
        "plugged",
        "power-button",
        "stop",
        "cgi/write",
        "cgi/power",
        "cgi/fetch",
    ):
        entries.append(cpio.file(f"etc/corral/{script}", (scripts / script).read_bytes(), executable=True))
    return cpio.render(entries)


def _unpack(target: pathlib.Path, scratch: pathlib.Path, distribution: Distribution) -> None:
    """Unpacks the packages: nothing is installed, no script runs."""
    options = ("--variant=extract", f"--include={','.join(distribution.packages)}")
    debootstrap.bootstrap(target, scratch, distribution.codename, options)


def _newest_kernel(unpacked: pathlib.Path) -> pathlib.Path:
    kernels = sorted(unpacked.glob("boot/vmlinuz-*"))
    if not kernels:
        raise errors.LabError(
            "The kernel's package unpacked without a kernel in /boot.", next_step="Try `apt update`, then this again."
        )
    return kernels[-1]


def _root_disk(target: pathlib.Path, scratch: pathlib.Path) -> None:
    raw, content = scratch / "root.raw", scratch / "content"
    (content / "data").mkdir(parents=True)
    with raw.open("wb") as disk:
        disk.truncate(ROOT_BYTES)
    debootstrap.run(["mke2fs", "-q", "-t", "ext4", "-L", ROOT_LABEL, "-m", "0", "-d", str(content), str(raw)])
    debootstrap.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(target)])


def _read(folder: pathlib.Path) -> GuestImage:
    facts = json.loads((folder / "guest.json").read_text())

    def artifact(name: str) -> Artifact:
        return Artifact(folder / name, facts["sha256"][name], (folder / name).stat().st_size)

    return GuestImage(
        kernel=artifact("vmlinuz"),
        initramfs=artifact("initramfs"),
        root=artifact("root.qcow2"),
        command_line=facts["commandLine"],
        release=facts["release"],
    )


def _distribution() -> Distribution:
    facts = platform.freedesktop_os_release()
    name, codename = facts["ID"], facts.get("VERSION_CODENAME", "")
    if name not in _KERNEL_PACKAGES or not codename or platform.machine() != "x86_64":
        raise errors.LabError(
            f"The guest's images can't be made of {name} {codename} on {platform.machine()}.",
            next_step="Use a Debian or Ubuntu machine with an x86_64 processor.",
        )
    return Distribution(name, codename)
