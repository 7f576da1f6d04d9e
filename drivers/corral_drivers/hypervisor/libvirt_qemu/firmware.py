"""Which UEFI firmware is installed on this host, by the descriptions that its packages bring; `driver` asks.

Explicit paths, and not libvirt's own choice (`<os firmware='efi'>`): the choice may be another one after an upgrade,
and a guest's variables fit the code that they were made with. Format: QEMU's `docs/interop/firmware.json`. What an
administrator puts into /etc replaces the package's file of the same name, and an empty one hides it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from corral_drivers.hypervisor.model import Firmware

FOLDERS = (Path("/usr/share/qemu/firmware"), Path("/etc/qemu/firmware"))
"""Where descriptions are, the one that counts more last."""

_ARCHITECTURE = "x86_64"
_MACHINES = frozenset({"pc-i440fx-*", "pc-q35-*"})
_NOT_FOR_ALL = frozenset({"enrolled-keys", "requires-smm", "secure-boot"})
"""Features of firmware that boots signed systems only, or on one machine type only."""


def find(folders: Iterable[Path] = FOLDERS) -> Firmware | None:
    """The first firmware that boots any system on every machine type of ours; None where there is none."""
    files = {path.name: path for folder in folders for path in sorted(folder.glob("*.json"))}
    for _, path in sorted(files.items()):
        try:
            found = _described(json.loads(path.read_text()))
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            # Not ours to mend: a description that is broken, hidden or of another form describes nothing here.
            continue
        if found is not None and Path(found.code).exists() and Path(found.template).exists():
            return found
    return None


def _described(said: Mapping[str, Any]) -> Firmware | None:
    mapping = said["mapping"]
    machines = {
        machine
        for target in said["targets"]
        if target["architecture"] == _ARCHITECTURE
        for machine in target["machines"]
    }
    fits = "uefi" in said["interface-types"] and machines >= _MACHINES and not _NOT_FOR_ALL & set(said["features"])
    if not fits or mapping["device"] != "flash" or mapping["executable"]["format"] != "raw":
        return None
    return Firmware(str(mapping["executable"]["filename"]), str(mapping["nvram-template"]["filename"]))
