"""Where the lab keeps things: one cache a machine's user, and one folder a lab.

Every part of the lab asks here for a path, so that taking a lab down, and cleaning the cache, are each one folder.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from corral_lab import errors, files


@dataclass(frozen=True, slots=True)
class Cache:
    """What takes minutes to make and serves every lab: the control plane's programs and the guest images."""

    root: Path

    @classmethod
    def find(cls, environ: Mapping[str, str]) -> Cache:
        """`$CORRAL_CACHE`, else `$XDG_CACHE_HOME/corral`, else `~/.cache/corral`, as an absolute path."""
        if chosen := environ.get("CORRAL_CACHE"):
            return cls(Path(chosen).absolute())
        if caches := environ.get("XDG_CACHE_HOME"):
            return cls(Path(caches).absolute() / "corral")
        return cls(Path(environ["HOME"] if environ.get("HOME") else Path.home()).absolute() / ".cache" / "corral")

    def programs(self, version: str) -> Path:
        """The folder of the control plane's programs of one Kubernetes version, such as `v1.37.2`."""
        return self.root / "programs" / version

    @property
    def guest(self) -> Path:
        return self.root / "guest"


@dataclass(frozen=True, slots=True)
class LabDir:
    """The folder of one lab. Two labs are two folders."""

    root: Path

    @classmethod
    def at(cls, folder: Path) -> LabDir:
        """The lab in `folder`, whose path is made absolute: the lab's processes outlive the caller's current folder."""
        return cls(folder.absolute())

    @property
    def env(self) -> Path:
        """A file to `source`: it points a shell at this lab."""
        return self.root / "env"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.root / "kubeconfig"

    @property
    def kubeconfigs(self) -> Path:
        """The folder of the other users' kubeconfigs."""
        return self.root / "kubeconfigs"

    @property
    def pki(self) -> Path:
        return self.root / "pki"

    @property
    def etcd(self) -> Path:
        return self.root / "etcd"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def run(self) -> Path:
        """The folder of the pid files."""
        return self.root / "run"

    @property
    def temporary(self) -> Path:
        """What stands in for /tmp: a daemon that is killed leaves its files, keys among them, with the lab."""
        return self.run / "tmp"

    @property
    def kubectl_cache(self) -> Path:
        """What the lab's own kubectl keeps, so that it leaves nothing in anybody's home."""
        return self.run / "kubectl"

    @property
    def shell_cache(self) -> Path:
        """What the kubectl of a person's shell keeps."""
        return self.root / "kubectl"

    @property
    def state(self) -> Path:
        return self.root / "state.json"

    @property
    def lock(self) -> Path:
        """Held while the lab is brought up or taken down."""
        return self.root / "lock"

    @property
    def exists(self) -> bool:
        return self.state.exists()

    def create(self) -> None:
        """Make the folders. Keys, data and logs are their owner's alone.

        Raises `errors.LabError` for a folder with something else in it, which `remove` would delete one day.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        if not self.exists:
            if any(self.root.iterdir()):
                raise errors.LabError(
                    f"{self.root} is not empty, and no lab.", next_step="Name a new or an empty folder with --dir."
                )
            files.replace(self.state, "{}\n")
        for folder in (self.kubeconfigs, self.pki, self.etcd, self.logs, self.run, self.temporary):
            folder.mkdir(mode=0o700, exist_ok=True)

    def remove(self) -> None:
        """Delete the folder and all that is in it. Refused for a folder that is not a lab's; nothing when it is gone.

        Raises `errors.LabError` where the folder was never a lab.
        """
        if not self.root.exists():
            return
        if not self.exists:
            raise errors.LabError(
                f"{self.root} holds no lab (it has no {self.state.name}), so it is not deleted.",
                next_step="Name the lab's folder with --dir, or delete this folder yourself.",
            )
        shutil.rmtree(self.root)
