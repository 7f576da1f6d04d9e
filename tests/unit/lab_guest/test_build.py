"""The parts of the guest's build that need no package and no root."""

from __future__ import annotations

import pathlib
import subprocess

import pytest

from corral_lab.guest import build, cpio, debootstrap


def test_the_archive_is_one_that_cpio_lists(tmp_path: pathlib.Path) -> None:
    entries = [cpio.directory("bin"), cpio.file("bin/sh", b"#!x", executable=True), cpio.symlink("sbin", "bin")]

    archive = cpio.render(entries)

    assert archive == cpio.render(entries)
    assert len(archive) % 4 == 0
    listed = subprocess.run(["cpio", "--list", "--verbose"], input=archive, capture_output=True, check=True)
    lines = [line.split(maxsplit=8) for line in listed.stdout.decode().splitlines()]
    assert [(line[0], line[4], line[8]) for line in lines] == [
        ("drwxr-xr-x", "0", "bin"),
        ("-rwxr-xr-x", "3", "bin/sh"),
        ("lrwxrwxrwx", "3", "sbin -> bin"),
    ]


def test_the_initramfs_has_init_the_modules_in_order_and_every_script() -> None:
    archive = build.initramfs(b"busybox", {"virtio": b"1", "virtio_pci": b"2"})

    names = subprocess.run(["cpio", "--list"], input=archive, capture_output=True, check=True).stdout.decode().split()
    assert {"init", "bin/sh", "etc/inittab", "etc/corral/up", "etc/corral/cgi/write"} <= set(names)
    assert b"virtio.ko\nvirtio_pci.ko\n" in archive
    # A folder stands before what is in it, or the kernel can't unpack it.
    assert all(names.index(str(parent)) < names.index(name) for name in names for parent in _parents(name))


def _parents(name: str) -> list[pathlib.PurePath]:
    return [parent for parent in pathlib.PurePath(name).parents if str(parent) != "."]


def test_another_distribution_is_another_key() -> None:
    bookworm, trixie = build.Distribution("debian", "bookworm"), build.Distribution("debian", "trixie")

    assert build.key(bookworm) == build.key(bookworm)
    assert build.key(bookworm) != build.key(trixie)


def test_only_sources_of_this_release_are_taken(tmp_path: pathlib.Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text("deb http://example.org/debian bookworm main\n")
    (tmp_path / "sources.list.d/debian.sources").write_text("Suites: bookworm bookworm-updates\n")
    (tmp_path / "sources.list.d/security.list").write_text("deb http://example.org/s bookworm/updates main\n")
    (tmp_path / "sources.list.d/vendor.list").write_text("deb http://example.org/vendor stable main\n")
    (tmp_path / "sources.list.d/old.list.disabled").write_text("deb http://example.org/debian bookworm main\n")

    found = debootstrap.apt_sources(tmp_path, "bookworm")

    assert [path.name for path in found] == ["sources.list", "security.list", "debian.sources"]


@pytest.mark.parametrize(
    "script", ["up", "ask", "told", "disks", "network", "plugged", "power-button", "stop", "cgi/write", "cgi/power"]
)
def test_the_scripts_are_shell(script: str) -> None:
    path = pathlib.Path(build.__file__).parent / "files" / script

    subprocess.run(["sh", "-n", path], check=True)
