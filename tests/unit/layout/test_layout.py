"""The layout of the project: source roots stay importable, and the wheel carries what the code reads."""

from __future__ import annotations

import pathlib
import subprocess
import sys
import zipfile

import pytest
from hatchling.builders import wheel

ROOT = pathlib.Path(__file__).parents[3]
SOURCES = ("operator/corral", "operator/corral_lab", "drivers/corral_drivers")


@pytest.mark.parametrize("root", ["operator", "drivers"])
def test_a_source_root_is_no_package(root: str) -> None:
    # One in operator/ would shadow the standard library's operator in every interpreter that is started here.
    assert not (ROOT / root / "__init__.py").exists()


def test_an_interpreter_that_is_started_here_has_its_own_operator() -> None:
    said = subprocess.run(
        [sys.executable, "-c", "import operator; print(operator.add(1, 2))"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    assert said.stdout == "3\n"


def test_the_wheel_has_every_file_of_the_packages(tmp_path: pathlib.Path) -> None:
    built = next(wheel.WheelBuilder(str(ROOT)).build(directory=str(tmp_path)))
    with zipfile.ZipFile(built) as archive:
        packed = set(archive.namelist())
    listed = subprocess.run(
        ["git", "ls-files", *SOURCES], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split()
    assert {path.split("/", 1)[1] for path in listed} <= packed
