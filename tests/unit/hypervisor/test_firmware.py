"""Which of the firmware that packages describe is taken for UEFI guests."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest

from corral_drivers.hypervisor.libvirt_qemu import firmware
from corral_drivers.hypervisor.model import Firmware


class Host:
    """Firmware files and their descriptions, as packages and an administrator leave them."""

    def __init__(self, root: pathlib.Path) -> None:
        self._root = root
        self.folders = (root / "usr", root / "etc")
        for folder in self.folders:
            folder.mkdir()

    def files(self, name: str) -> Firmware:
        """Code and variables of this name, as they are on the disk."""
        made = [self._root / f"{name}.{part}" for part in ("code", "vars")]
        for path in made:
            path.touch()
        return Firmware(*map(str, made))

    def describe(self, file: str, found: Firmware, folder: int = 0, **other: Any) -> None:
        said = {
            "interface-types": ["uefi"],
            "mapping": {
                "device": "flash",
                "executable": {"filename": found.code, "format": "raw"},
                "nvram-template": {"filename": found.template, "format": "raw"},
            },
            "targets": [{"architecture": "x86_64", "machines": ["pc-i440fx-*", "pc-q35-*"]}],
            "features": ["acpi-s3"],
        }
        (self.folders[folder] / file).write_text(json.dumps(said | other))


@pytest.fixture
def host(tmp_path: pathlib.Path) -> Host:
    return Host(tmp_path)


def test_the_first_that_boots_any_system_on_any_machine_is_taken(host: Host) -> None:
    signed, narrow, plain, later = (host.files(name) for name in ("signed", "narrow", "plain", "later"))
    host.describe("40-signed.json", signed, features=["enrolled-keys", "requires-smm", "secure-boot"])
    host.describe("50-narrow.json", narrow, targets=[{"architecture": "x86_64", "machines": ["pc-q35-*"]}])
    host.describe("60-plain.json", plain)
    host.describe("70-later.json", later)
    assert firmware.find(host.folders) == plain


def test_a_host_without_any_has_none(host: Host) -> None:
    assert firmware.find(host.folders) is None
    assert firmware.find((host.folders[0] / "missing",)) is None


@pytest.mark.parametrize(
    "other",
    [
        {"interface-types": ["bios"]},
        {"targets": [{"architecture": "aarch64", "machines": ["pc-i440fx-*", "pc-q35-*"]}]},
        {"mapping": {"device": "memory", "filename": "/x"}},
        {"mapping": {"device": "flash", "executable": {"filename": "/x", "format": "qcow2"}}},
        {"mapping": {"device": "flash", "mode": "stateless", "executable": {"filename": "/x", "format": "raw"}}},
        {"targets": None},
    ],
)
def test_other_firmware_is_passed_over(host: Host, other: dict[str, Any]) -> None:
    host.describe("60-other.json", host.files("other"), **other)
    assert firmware.find(host.folders) is None


@pytest.mark.parametrize("content", ["", "[]", "{}", "no JSON", "null"])
def test_a_broken_description_describes_nothing(host: Host, content: str) -> None:
    (host.folders[0] / "10-broken.json").write_text(content)
    plain = host.files("plain")
    host.describe("60-plain.json", plain)
    assert firmware.find(host.folders) == plain


def test_a_description_whose_files_are_gone_describes_nothing(host: Host) -> None:
    host.describe("60-plain.json", Firmware("/missing.code", "/missing.vars"))
    assert firmware.find(host.folders) is None


def test_an_administrator_replaces_and_hides(host: Host) -> None:
    plain, own = host.files("plain"), host.files("own")
    host.describe("60-plain.json", plain)
    host.describe("60-plain.json", own, folder=1)
    assert firmware.find(host.folders) == own
    (host.folders[1] / "60-plain.json").write_text("")
    assert firmware.find(host.folders) is None
