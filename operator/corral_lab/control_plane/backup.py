"""A backup of etcd, and putting it back: what an operator does after a disaster, and what tests do to rehearse one.

A cold copy of the data folder, taken while etcd is stopped. Put back, it takes the whole API back to that moment, and
resourceVersions with it: they are given out a second time, to other objects. `etcdutl snapshot restore` without
`--bump-revision` does the same (https://etcd.io/docs/latest/op-guide/recovery/).
"""

from __future__ import annotations

import shutil
from pathlib import Path

from corral_lab import errors, paths

_MARK = "member"
"""What every data folder of etcd has."""


def take(lab: paths.LabDir, folder: Path) -> None:
    """Copy the data of etcd, which must not run, to `folder`. Raises `errors.LabError` where that is there already."""
    if folder.exists():
        raise errors.LabError(f"{folder} is there already.", next_step="Name a folder that is not there yet.")
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(lab.etcd, partial)
    partial.rename(folder)


def put_back(lab: paths.LabDir, folder: Path) -> None:
    """Make the data of etcd, which must not run, what `take` copied to `folder`; the copy stays.

    Raises `errors.LabError` where `folder` is no backup.
    """
    check(folder)
    shutil.rmtree(lab.etcd)
    shutil.copytree(folder, lab.etcd)


def check(folder: Path) -> None:
    """Raises `errors.LabError` where `folder` is no backup."""
    if not (folder / _MARK).is_dir():
        raise errors.LabError(
            f"{folder} is no backup of a lab's etcd.", next_step="Take one first: `corral lab backup FOLDER`."
        )
