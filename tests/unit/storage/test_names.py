"""A name becomes a file's: whatever it is, it stays in its folder, or is refused."""

from __future__ import annotations

import os
import pathlib

import hypothesis
import pytest
from hypothesis import strategies as st

from corral_drivers import errors
from corral_drivers.seed import nocloud
from corral_drivers.seed import port as seed_port
from corral_drivers.storage import port, qcow2

POOL, SEEDS = "/var/lib/corral/disks", "/var/lib/corral/seeds"
HOSTILE = [
    "",
    ".",
    "..",
    "../x",
    "x/../../y",
    "/etc/passwd",
    "a\0b",
    "a\nb",
    "-rf",
    "~",
    "%s",
    "a b",
    "é",
    "\u202e",
    "x" * 300,
]
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=200) | st.sampled_from(HOSTILE)
LIKELY = st.text("ab./-_~%\\0\n:", max_size=12)


def stays(path: str, folder: str, depth: int) -> bool:
    """Whether the path is this many names below the folder, as it is written and as the kernel would walk it."""
    below = pathlib.PurePath(path).relative_to(folder).parts
    return os.path.normpath(path) == path and len(below) == depth and not any(part.startswith(".") for part in below)


@hypothesis.given(owner=TEXT | LIKELY, name=TEXT | LIKELY)
@hypothesis.example(owner="..", name="x")
@hypothesis.example(owner="x", name="../../y")
@hypothesis.example(owner="6f1c1f9e-5df5-4f3f-9d2c-8a5b0d4a7f11", name="root")
def test_no_disk_leaves_its_pool(owner: str, name: str) -> None:
    pool = qcow2.Qcow2(port.Settings("cloud", "host", POOL))
    try:
        path = pool.path(owner, name)
    except errors.Rejected:
        return
    assert stays(path, POOL, 2)
    assert path == f"{POOL}/{owner}/{name}.qcow2"


@hypothesis.given(owner=TEXT | LIKELY)
@hypothesis.example(owner="..")
def test_no_seed_leaves_its_folder(owner: str) -> None:
    try:
        path = nocloud.NoCloud(seed_port.Settings(SEEDS)).path(owner)
    except errors.Rejected:
        return
    assert stays(path, SEEDS, 1)
    assert path == f"{SEEDS}/{owner}.iso"


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_refused_in_words(name: str) -> None:
    pool = qcow2.Qcow2(port.Settings("cloud", "host", POOL))
    for owner, disk in ((name, "root"), ("u1", name)):
        with pytest.raises(errors.Rejected, match="can't be a disk's or an owner's name"):
            pool.path(owner, disk)
