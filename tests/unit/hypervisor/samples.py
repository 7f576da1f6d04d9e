"""Domains that the golden files show."""

from __future__ import annotations

import dataclasses

from corral_drivers.hypervisor.model import DirectBoot, Disk, Domain, Firmware, Interface, Mark, Uefi

DIRECT = Domain(
    uuid="6f1d2c1e-6a2b-4c57-9d0c-3f1f4f0a7b11",
    name="shop-web-6f1d2c1e",
    mark=Mark("3c0e8f52-cloud", "9a1b7c44-host", "shop", "web", "6f1d2c1e-vm", 1),
    cpus=1,
    memory=128 << 20,
    machine="pc-i440fx-7.2",
    accelerator="tcg",
    console_log="/var/lib/corral/consoles/shop-web.log",
    disks=(
        Disk("vda", "/var/lib/corral/disks/root.qcow2", "qcow2", 4, "root"),
        Disk("vdb", "/var/lib/corral/seeds/web.iso", "raw", 5, "seed", read_only=True),
    ),
    interfaces=(Interface("c-6f1d2c1e", "52:54:00:12:34:56", 1450, 3),),
    boot=DirectBoot(
        "/var/lib/corral/images/vmlinuz", "/var/lib/corral/images/initramfs", "console=ttyS0 root=/dev/vda"
    ),
)

FIRMWARE = Domain(
    uuid="0a7d7c5b-2b3e-4f6a-8c9d-1e2f3a4b5c6d",
    name="shop-db-0a7d7c5b",
    mark=Mark("3c0e8f52-cloud", "9a1b7c44-host", "shop", "db", "0a7d7c5b-vm", 7),
    cpus=8,
    memory=16 << 30,
    machine="q35",
    accelerator="kvm",
    console_log="/var/lib/corral/consoles/shop-db.log",
    disks=(Disk("vda", "/var/lib/corral/disks/db.raw", "raw", 4, "root"),),
    interfaces=(
        Interface("c-0a7d7c5b-0", "52:54:00:ab:cd:ef", 9000, 3),
        Interface("c-0a7d7c5b-1", "52:54:00:ab:cd:f0", 1500, 5),
    ),
)

AWKWARD = Domain(
    uuid="f0e1d2c3-b4a5-4697-8879-6a5b4c3d2e1f",
    name="a <b> & 'c' \"d\"",
    mark=Mark("<cloud>", '"host"', "'n'", "&amp;", "]]>", 0),
    cpus=1,
    memory=1 << 20,
    machine="pc",
    accelerator="tcg",
    console_log="/logs/o'clock, <now>",
    disks=(),
    interfaces=(),
    boot=DirectBoot("/k & k", "", "quiet init='/bin/sh' a<b"),
)

UEFI = dataclasses.replace(
    FIRMWARE,
    machine="pc",
    accelerator="tcg",
    memory=512 << 20,
    uefi=Uefi(
        Firmware("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
        "/var/lib/corral/uefi/0a7d7c5b.fd",
    ),
)

ALL = {"direct": DIRECT, "firmware": FIRMWARE, "awkward": AWKWARD, "uefi": UEFI}
