"""Which kernel modules the guest loads, and in which order.

A distribution's kernel keeps virtio and ISO 9660 as modules, and an unpacked package has no `modules.dep` yet. The
dependencies stand in each module itself (its `.modinfo` section), so `corral_lab.guest.build` reads them there.
"""

from __future__ import annotations

import lzma
import pathlib
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable

WANTED = ("virtio_pci", "virtio_blk", "isofs", "virtio_net", "button", "evdev", "af_packet")
"""What the guest needs, beside what is built into the kernel: disks, the seed, the NIC, the power button, DHCP."""

_DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")
_SUFFIXES = (".ko", ".ko.xz", ".ko.zst")


def load_order(wanted: Iterable[str], depends: Callable[[str], tuple[str, ...]]) -> tuple[str, ...]:
    """The modules to load, each after all it depends on, each once. There are no circles: depmod refuses them."""
    order: dict[str, None] = {}

    def visit(name: str) -> None:
        for needed in depends(name):
            if needed not in order:
                visit(needed)
        order[name] = None

    for name in wanted:
        if name not in order:
            visit(name)
    return tuple(order)


def dependencies(module: bytes) -> tuple[str, ...]:
    """The names that an uncompressed module's `.modinfo` says it depends on."""
    found = _DEPENDS.search(module)
    return tuple(found[1].decode().split(",")) if found and found[1] else ()


def collect(folder: pathlib.Path, wanted: Iterable[str] = WANTED) -> dict[str, bytes]:
    """The modules of `folder` (`lib/modules/<release>`) to load, by name and uncompressed, in the order to load them.

    A wanted module without a file is one that is built into this kernel.
    """
    files = {_name(path): path for path in folder.rglob("*.ko*") if path.name.endswith(_SUFFIXES)}
    read: dict[str, bytes] = {}

    def depends(name: str) -> tuple[str, ...]:
        read[name] = _uncompressed(files[name])
        return tuple(needed for needed in dependencies(read[name]) if needed in files)

    return {name: read[name] for name in load_order((name for name in wanted if name in files), depends)}


def _name(path: pathlib.Path) -> str:
    # The kernel takes a dash and an underscore in a module's name for the same; modinfo always says underscore.
    return path.name.split(".")[0].replace("-", "_")


def _uncompressed(path: pathlib.Path) -> bytes:
    match path.suffix:
        case ".xz":
            return lzma.decompress(path.read_bytes())
        case ".zst":
            zstd = shutil.which("zstd") or "zstd"
            return subprocess.run([zstd, "--decompress", "--stdout", path], check=True, capture_output=True).stdout
        case _:
            return path.read_bytes()
