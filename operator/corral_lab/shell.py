"""What a person's shell needs of a lab: a file to `source`, and, under sudo, the right to read it and the kubeconfig.

`corral lab up` writes it each time. sudo runs the lab as root and says in its environment for whom: the folder, the
file and the administrator's kubeconfig are then that user's, so that kubectl works in the shell that sudo was typed in.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from corral_lab import files, paths
from corral_lab.options import Prefix

_PROXIES = ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")


@dataclass(frozen=True, slots=True)
class Person:
    """Whose shell it is: the ids of a user and a group."""

    user: int
    group: int

    @classmethod
    def find(cls, environ: Mapping[str, str]) -> Person | None:
        """Who typed sudo; None where nobody did (sudo(8), SUDO_UID and SUDO_GID)."""
        ids = [environ.get(name, "") for name in ("SUDO_UID", "SUDO_GID")]
        return cls(*map(int, ids)) if all(one.isdecimal() for one in ids) else None


def make(folder: Path, person: Person | None) -> None:
    """Make the folder, and see that it and the folders above it that were not there are the person's, not root's."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    if person is not None:
        for path in missing:
            os.chown(path, person.user, person.group)


def write(lab: paths.LabDir, kubectl: Path, prefixes: Iterable[Prefix], person: Person | None) -> None:
    """Write the file to `source`, and give the person what is theirs. The folder and the kubeconfig are there."""
    lab.shell_cache.mkdir(mode=0o700, exist_ok=True)
    files.replace(lab.env, render(lab, kubectl, prefixes), mode=0o644)
    if person is not None:
        for path in (lab.root, lab.env, lab.kubeconfig, lab.shell_cache):
            os.chown(path, person.user, person.group)


def render(lab: paths.LabDir, kubectl: Path, prefixes: Iterable[Prefix]) -> str:
    """The file's text, for any POSIX shell: this lab's kubectl and API server, and its addresses past every proxy."""
    direct = ",".join(map(str, prefixes))
    asked = "".join(f"${{{name}-}}" for name in _PROXIES)
    return f"""\
export KUBECONFIG={shlex.quote(str(lab.kubeconfig))}
export KUBECACHEDIR={shlex.quote(str(lab.shell_cache))}
export PATH={shlex.quote(str(kubectl.parent))}:"$PATH"
if [ -n "{asked}" ]; then
    export no_proxy="{direct}${{no_proxy:+,$no_proxy}}"
    export NO_PROXY="$no_proxy"
fi
"""
