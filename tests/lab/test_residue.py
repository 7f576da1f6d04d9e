"""`corral lab` as a person types it: the demo, a second lab beside the first, and nothing left when it is taken down.

These tests compare this whole machine before and after, and so want a machine on which nothing else comes or goes.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator

import pytest

from corral_lab.programs import recipe

from . import machine
from .cloud import Cloud, until

pytestmark = pytest.mark.lab

PROJECT = pathlib.Path(__file__).parents[2]
PREFIXES = ("--management", "100.90.0.0/24", "--guests", "10.79.0.0/24", "--loopbacks", "100.85.0.0/24")
NOBODY = 65534


class Terminal:
    """A shell of a person's: what is typed there, and the lab's folder, which stands where everybody can reach it."""

    def __init__(self, scratch: pathlib.Path) -> None:
        self.folder = scratch / "lab"
        self.token = uuid.uuid4().hex
        self.environ = os.environ | {"CORRAL_LAB": str(self.folder), "CORRAL_TEST_TOKEN": self.token}

    def corral_lab(self, *arguments: str, fails: bool = False) -> str:
        """`corral lab …`; returns what it says, on both streams."""
        command = [sys.executable, "-m", "corral", "lab", *arguments]
        done = subprocess.run(
            command,
            cwd=PROJECT,
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=180,
            check=False,
        )
        assert (done.returncode != 0) == fails, done.stdout
        return done.stdout

    def processes(self) -> dict[int, str]:
        return machine.processes(self.folder, self.token)

    def snapshot(self) -> machine.Snapshot:
        return machine.snapshot(self.folder, self.token)

    def leaves_nothing(self, before: machine.Snapshot) -> None:
        """Fail where the machine is not as before; what the kernel is still taking away has a moment."""
        deadline = time.monotonic() + 5
        while (left := machine.differences(before, self.snapshot())) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert not left, left
        assert not self.folder.exists()


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    # pytest's own folders are closed to other users, and a lab's paths are long enough.
    scratch = pathlib.Path(tempfile.mkdtemp(prefix="corral-residue-"))
    scratch.chmod(0o755)
    shell = Terminal(scratch)
    try:
        yield shell
    finally:
        shell.corral_lab("down")
        shutil.rmtree(scratch)


def test_the_demo_is_quick_the_second_time_and_leaves_nothing(cloud: Cloud, terminal: Terminal) -> None:
    before = terminal.snapshot()
    told = terminal.corral_lab("demo", *PREFIXES)
    assert "http://10.79.0." in told
    assert "at the same address" in told
    assert "ImageNotFound" in told
    assert "kubectl get vm.corral.dev -o wide" in told
    _stand_side_by_side(cloud, terminal)

    running = _without_guests(terminal)
    begun = time.monotonic()
    terminal.corral_lab("demo", *PREFIXES)
    assert time.monotonic() - begun < 25
    assert _without_guests(terminal) == running, "a process was started anew"

    terminal.corral_lab("down")
    terminal.leaves_nothing(before)
    terminal.corral_lab("down")
    terminal.leaves_nothing(before)


def test_a_user_of_sudo_has_kubectl_and_a_lab_that_was_killed_leaves_nothing(cloud: Cloud, terminal: Terminal) -> None:
    terminal.environ |= {"SUDO_UID": str(NOBODY), "SUDO_GID": str(NOBODY)}
    terminal.environ["KUBEBUILDER_ASSETS"] = str(_within_reach(cloud, terminal.folder.parent / "programs"))
    before = terminal.snapshot()
    terminal.corral_lab("up", *PREFIXES)

    typed = f'. {terminal.folder}/env && kubectl get hosts.corral.dev -o name && echo "$no_proxy"'
    as_user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "sh", "-c", typed]
    environ = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "https_proxy": "http://192.0.2.1:3128"}
    done = subprocess.run(as_user, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.split() == ["host.corral.dev/h1", "100.90.0.0/24,10.79.0.0/24,fd00:10:79::/64"], done.stderr

    for pid in terminal.processes():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    until(lambda: not terminal.processes())
    terminal.corral_lab("down")
    terminal.leaves_nothing(before)


@pytest.mark.parametrize("taken", ["management", "guests", "loopbacks", "guests6"])
def test_a_prefix_that_is_taken_is_refused_before_anything_is_changed(
    cloud: Cloud, terminal: Terminal, taken: str
) -> None:
    options = cloud.lab.options()
    assert options is not None
    prefix = str(getattr(options, taken))
    prefixes = dict(zip(PREFIXES[::2], PREFIXES[1::2], strict=True)) | {f"--{taken}": prefix}
    before = terminal.snapshot()

    told = terminal.corral_lab("up", *(word for pair in prefixes.items() for word in pair), fails=True)

    assert f"{prefix} overlaps the route to" in told
    assert "Next: " in told
    assert "Traceback" not in told
    terminal.leaves_nothing(before)


def _stand_side_by_side(cloud: Cloud, terminal: Terminal) -> None:
    """The tests' own lab is as well as it was: its host is Ready, and its guests' pool its own."""
    assert "True" in cloud.api.run("get", "hosts.corral.dev")
    shown = subprocess.run(["ip", "route"], capture_output=True, text=True, timeout=10, check=True).stdout
    options = cloud.lab.options()
    assert options is not None
    assert str(options.guests) in shown
    assert "10.79.0.0/24" in shown


def _without_guests(terminal: Terminal) -> dict[int, str]:
    """The lab's processes but the guests, of which the tour kills one."""
    return {pid: command for pid, command in terminal.processes().items() if "qemu-system" not in command}


def _within_reach(cloud: Cloud, folder: pathlib.Path) -> pathlib.Path:
    """The control plane's programs where any user can run them: root's own cache is closed to others."""
    folder.mkdir(mode=0o755)
    for program in recipe.PROGRAMS:
        shutil.copy(cloud.api.program.parent / program.name, folder)
    return folder
