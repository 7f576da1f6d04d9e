"""The trial that tells KVM that runs guests from a `/dev/kvm` that is only there."""

from __future__ import annotations

import pathlib
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable

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
    assert accelerator.detect(str(tmp_path / "nowhere"), processors=_processors(tmp_path, "vmx")) == "tcg"


@pytest.mark.skipif(not pathlib.Path("/dev/kvm").exists(), reason="without /dev/kvm nothing is tried")
@pytest.mark.parametrize(
    ("flags", "answer"), [("fpu vmx lm", "kvm"), ("fpu svm", "kvm"), ("fpu lm hypervisor", "tcg"), ("fpu xvmx", "tcg")]
)
def test_what_runs_only_kernels_made_for_it_is_not_even_tried(tmp_path: pathlib.Path, flags: str, answer: str) -> None:
    willing = _program(tmp_path, "exit 67")
    assert accelerator.detect(willing, processors=_processors(tmp_path, flags)) == answer


def test_a_trial_whose_caller_is_killed_ends_by_itself(tmp_path: pathlib.Path) -> None:
    slow = _program(tmp_path, f"echo $$ > {tmp_path}/pid; exec sleep 60")
    call = (
        f"from corral_drivers.hypervisor.libvirt_qemu import accelerator; accelerator.runs({slow!r}, (), deadline_s=1)"
    )
    with subprocess.Popen([sys.executable, "-c", call]) as caller:
        _until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip())
        caller.kill()
    pid = (tmp_path / "pid").read_text().strip()
    _until(lambda: not pathlib.Path("/proc", pid).exists() or _is_zombie(pid))


def _is_zombie(pid: str) -> bool:
    try:
        return pathlib.Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def _until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def _processors(folder: pathlib.Path, flags: str) -> pathlib.Path:
    """A cpuinfo of one processor."""
    shown = folder / "cpuinfo"
    shown.write_text(f"processor\t: 0\nflags\t\t: {flags}\nvmx flags\t: none\n\n")
    return shown
