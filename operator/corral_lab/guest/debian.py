"""Builds a whole Debian 12 once into the cache: what a tenant's image is like, with systemd, cloud-init and OpenSSH.

`corral lab image` and `corral lab prepare` call `provide`. It boots by BIOS and by UEFI. Its packages come from the
machine's own apt sources; what is set in it is in `debian_files/`, of which most saves an emulated processor time. As
the small guest's, its folder is named by a key of the recipe, and is there whole or not at all.
"""

from __future__ import annotations

import hashlib
import pathlib
import shutil
import tempfile

from corral_lab import files, paths, progress
from corral_lab.guest import build, debootstrap, disk

NAME = "debian-12"
USER = "debian"
"""Who has the SSH keys of the seed, and may sudo."""

ROOT_BYTES = 2040 << 20
"""Of the root file system: the disk is 2 GiB with it. A larger disk is taken up at the first boot."""

_CODENAME = "bookworm"
_ROOT_LABEL = "debian-root"  # debian_files/early.cfg and grub.cfg find it by this
_ESP_BYTES = 4 << 20
_PACKAGES = (
    *("linux-image-cloud-amd64", "initramfs-tools", "lz4", "grub-pc-bin", "grub-efi-amd64-bin"),
    *("systemd-sysv", "udev", "dbus", "systemd-resolved", "netplan.io", "iproute2", "iputils-ping"),
    *("cloud-init", "cloud-guest-utils", "openssh-server", "qemu-guest-agent"),
    *("sudo", "login", "passwd", "ca-certificates"),
)
_LEFT_OUT = ("man", "locale", "doc")
_PROGRAMS = debootstrap.PROGRAMS | {"mformat": "mtools", "mcopy": "mtools"}
_HERE = pathlib.Path(__file__).parent
_FILES = _HERE / "debian_files"
_DISK, _SUM = "debian-12.qcow2", "sha256"


def key() -> str:
    """What changes with the recipe: its name, and twelve hex digits of its sources."""
    digest = hashlib.sha256()
    sources = (_HERE / name for name in ("debian.py", "debootstrap.py", "disk.py"))
    for path in sorted([*sources, *_FILES.rglob("*")]):
        if path.is_file():
            digest.update(f"\0{path.relative_to(_HERE)}\0".encode() + path.read_bytes())
    return f"{NAME}-{digest.hexdigest()[:12]}"


def provide(cache: paths.Cache, steps: progress.Steps) -> build.Artifact:
    """The disk of this recipe (qcow2): out of the cache, or built now, which needs root, apt's sources and 1 GB.

    Raises `errors.LabError` where it can't be built, such as for a program that is missing, with its package.
    """
    folder = cache.guest / key()
    cache.guest.mkdir(parents=True, exist_ok=True)
    with files.hold(cache.guest / f"{NAME}.lock"):
        if not folder.exists():
            debootstrap.check_programs(_PROGRAMS)
            for stale in cache.guest.glob("debian-build-*"):
                shutil.rmtree(stale)
            with steps.step("Debian 12 image", hint="a minute and a half, and a download of 100 MB") as step:
                _build(folder, step)
    return _read(folder)


def can_be_built() -> bool:
    """Whether apt has this release's packages here: another release's machine has them only where somebody added it."""
    return bool(debootstrap.apt_sources(pathlib.Path("/etc/apt"), _CODENAME))


def load(cache: paths.Cache, name: str) -> build.Artifact | None:
    """The disk of the folder `name` of the cache, which may be an older recipe's; None where it is not there."""
    folder = cache.guest / name
    return _read(folder) if (folder / _SUM).exists() else None


def _read(folder: pathlib.Path) -> build.Artifact:
    path = folder / _DISK
    return build.Artifact(path, (folder / _SUM).read_text(), path.stat().st_size)


def _build(folder: pathlib.Path, step: progress.Step) -> None:
    with tempfile.TemporaryDirectory(prefix="debian-build-", dir=folder.parent) as name:
        scratch = pathlib.Path(name)
        made = scratch / "made"
        made.mkdir()
        step.note(f"installing {len(_PACKAGES)} packages of {_CODENAME} and what they need")
        _install(scratch)
        step.note("writing the disk")
        _disk(made / _DISK, scratch)
        with (made / _DISK).open("rb") as written:
            (made / _SUM).write_text(hashlib.file_digest(written, "sha256").hexdigest())
        # Last, and in one step: the folder is there whole or not at all.
        made.rename(folder)


def _install(scratch: pathlib.Path) -> None:
    boot = scratch / "boot"
    boot.mkdir()
    shutil.copyfile(_FILES / "early.cfg", boot / "early.cfg")
    # Before the kernel is installed, so that its initramfs is made once, and as it is configured.
    settings = f'cp --recursive "{_FILES}/root/." "$1/"'
    debootstrap.bootstrap(
        scratch / "root",
        scratch,
        _CODENAME,
        (
            "--variant=minbase",
            f"--include={','.join(_PACKAGES)}",
            *(f"--dpkgopt=path-exclude=/usr/share/{folder}/*" for folder in _LEFT_OUT),
            f"--essential-hook={settings}",
            f'--customize-hook=sh "{_FILES}/finish" "$1" "{boot}"',
        ),
    )


def _disk(target: pathlib.Path, scratch: pathlib.Path) -> None:
    boot, root, esp, raw = scratch / "boot", scratch / "root.ext4", scratch / "esp.fat", scratch / "disk.raw"
    _truncated(root, ROOT_BYTES)
    # GRUB 2.06 does not read the two newest features of ext4.
    features = "^metadata_csum_seed,^orphan_file"
    debootstrap.run(
        [
            "mke2fs",
            "-q",
            "-t",
            "ext4",
            "-L",
            _ROOT_LABEL,
            "-m",
            "1",
            "-O",
            features,
            "-d",
            str(scratch / "root"),
            str(root),
        ]
    )
    _truncated(esp, _ESP_BYTES)
    debootstrap.run(["mformat", "-i", str(esp), "-v", "EFI", "::"])
    debootstrap.run(["mmd", "-i", str(esp), "::/EFI", "::/EFI/BOOT"])
    debootstrap.run(["mcopy", "-i", str(esp), str(boot / "BOOTX64.EFI"), "::/EFI/BOOT/BOOTX64.EFI"])
    parts = (
        # The numbers are those of Debian's own cloud images; the root comes last, so that it can grow.
        disk.Part(14, disk.BIOS_BOOT, "bios", boot / "core.img"),
        disk.Part(15, disk.EFI_SYSTEM, "efi", esp),
        disk.Part(1, disk.LINUX_ROOT, "root", root),
    )
    disk.write(raw, parts, (boot / "boot.img").read_bytes())
    debootstrap.run(["qemu-img", "convert", "-W", "-c", "-f", "raw", "-O", "qcow2", str(raw), str(target)])


def _truncated(path: pathlib.Path, size: int) -> None:
    with path.open("wb") as file:
        file.truncate(size)
