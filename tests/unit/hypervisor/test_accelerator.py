"""The trial that tells KVM that runs guests from a `/dev/kvm` that is only there."""

from __future__ import annotations

import pathlib
import shutil
import stat

import pytest

from corral_drivers.hypervisor.libvirt_qemu import accelerator


@pytest.mark.lab
@pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="QEMU is missing")
def test_the_boot_sector_runs_to_its_end_where_guests_run() -> None:
    assert accelerator.runs("qemu-system-x86_64", ("-accel", "tcg"), deadline_s=20.0)


def _program(folder: pathlib.Path, script: str) -> str:
    program = folder / "qemu"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return str(program)


@pytest.mark.parametrize(
    ("script", "answer"), [("exit 67", True), ("exit 0", False), ("exit 1", False), ("exec sleep 60", False)]
)
def test_only_the_right_answer_in_time_counts(tmp_path: pathlib.Path, script: str, answer: bool) -> None:
    assert accelerator.runs(_program(tmp_path, script), (), deadline_s=1.0) is answer


def test_without_qemu_there_is_no_kvm(tmp_path: pathlib.Path) -> None:
    assert accelerator.detect(str(tmp_path / "nowhere")) == "tcg"
