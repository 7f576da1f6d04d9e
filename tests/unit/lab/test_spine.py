"""What a spine is told, as a golden file, which FRR's own parser accepts too."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess

import pytest

from corral_lab.fabric import render
from corral_lab.options import Options

GOLDEN = pathlib.Path(__file__).parent / "golden"
OPTIONS = Options(hosts=3)
TEXTS = {
    "spine-zebra.conf": render.zebra(1),
    "spine-bgpd.conf": render.bgpd(1, OPTIONS.spine_loopback(1), OPTIONS.machine_loopback, ["h1", "h2", "h3"]),
}


@pytest.mark.parametrize("name", TEXTS)
def test_the_configuration_is_the_golden_one(name: str) -> None:
    if os.environ.get("CORRAL_GOLDEN") == "write":
        (GOLDEN / name).write_text(TEXTS[name])
    assert (GOLDEN / name).read_text() == TEXTS[name]


@pytest.mark.skipif(shutil.which("vtysh") is None, reason="FRR's vtysh is not on this machine")
@pytest.mark.parametrize("name", TEXTS)
def test_frr_accepts_it(name: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "vtysh.conf").touch()
    for line, accepted in (("", True), ("nonsense\n", False)):
        file = tmp_path / name
        file.write_text(TEXTS[name] + line)
        command = ["vtysh", "--config_dir", str(tmp_path), "-C", "-f", str(file)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        assert (done.returncode == 0) == accepted, done.stdout + done.stderr
