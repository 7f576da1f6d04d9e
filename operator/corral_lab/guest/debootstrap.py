"""Debian packages into a folder by mmdebstrap, from this machine's own apt sources; `build` and `debian` call it."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
from collections.abc import Mapping, Sequence

from corral_lab import errors

PROGRAMS = {"mmdebstrap": "mmdebstrap", "apt-config": "apt", "mke2fs": "e2fsprogs", "qemu-img": "qemu-utils"}
"""What every image needs, with the package that each program is of."""


def bootstrap(target: pathlib.Path, scratch: pathlib.Path, codename: str, options: Sequence[str]) -> None:
    """Make `target` of the release's packages, with the sources, keys and proxies that apt has here.

    `options` are mmdebstrap's: the variant, the packages, hooks. Raises `errors.LabError`.
    """
    sources = apt_sources(pathlib.Path("/etc/apt"), codename)
    if not sources:
        raise errors.LabError(
            f"apt has no source of {codename} packages, of which the guest's images are made.",
            next_step="Name one in /etc/apt/sources.list.d, and try `apt update`.",
        )
    settings = run(["apt-config", "dump", "Acquire"]).splitlines()
    kept = scratch / "apt.conf"
    kept.write_text("".join(f"{line}\n" for line in settings if not line.endswith(' "";')))
    run(["mmdebstrap", "--mode=root", f"--aptopt={kept}", *options, codename, str(target), *map(str, sources)])


def apt_sources(folder: pathlib.Path, codename: str) -> list[pathlib.Path]:
    """apt's files of sources that name the release; another vendor's would only slow the update down."""
    files = [folder / "sources.list", *sorted(folder.glob("sources.list.d/*.list"))]
    files += sorted(folder.glob("sources.list.d/*.sources"))
    return [path for path in files if path.is_file() and codename in path.read_text().replace("/", " ").split()]


def check_programs(programs: Mapping[str, str]) -> None:
    """Raises `errors.LabError` where one of the programs is missing, with its package, or this is not root."""
    missing = sorted({package for program, package in programs.items() if not shutil.which(program)})
    if missing:
        raise errors.LabError(
            "The guest's images need programs that are not installed.",
            next_step=f"apt install --no-install-recommends {' '.join(missing)}",
        )
    if os.geteuid() != 0:
        raise errors.LabError("The guest's images are built as root.", next_step="Run this with sudo.")


def run(argv: Sequence[str]) -> str:
    """What the program prints. Raises `errors.LabError` with its last words where it fails."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        last = "\n  ".join(done.stderr.strip().splitlines()[-5:])
        raise errors.LabError(
            f"{argv[0]} failed with {done.returncode} while making the guest's images:\n  {last}",
            next_step="Mend what it names, often the network or apt's sources, then run this again: nothing was left.",
        )
    return done.stdout
