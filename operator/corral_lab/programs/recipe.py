"""What the control plane is made of: four programs, their Go packages, and the versions that go together.

`lookup` and `build` go by this; the versions are read from go.mod, so an upgrade is a change to go.mod alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
_OLDEST_ETCD = (3, 6)


@dataclass(frozen=True, slots=True)
class Program:
    """One program: the Go package it is built from, how it tells its version, and how long its build takes."""

    name: str
    package: str
    version_arguments: tuple[str, ...]
    seconds: int
    """To build it on two cores with empty caches, in the order of `PROGRAMS`."""


PROGRAMS = (
    Program("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver", ("--version",), 230),
    Program("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager", ("--version",), 70),
    Program("kubectl", "k8s.io/kubernetes/cmd/kubectl", ("version", "--client"), 20),
    Program("etcd", "go.etcd.io/etcd/server/v3", ("--version",), 10),
)


@dataclass(frozen=True, slots=True)
class Programs:
    """Where the four programs are."""

    etcd: Path
    kube_apiserver: Path
    kube_controller_manager: Path
    kubectl: Path


@dataclass(frozen=True, slots=True)
class Recipe:
    """The versions in go.mod: `kubernetes` such as `v1.37.2`, `go` (the oldest that builds it) such as (1, 26)."""

    kubernetes: str
    go: tuple[int, int]

    @classmethod
    def read(cls, go_mod: Path = HERE / "go.mod") -> Recipe:
        text = go_mod.read_text()
        kubernetes = re.search(r"^\s*k8s\.io/kubernetes (v\S+)", text, re.MULTILINE)
        go = re.search(r"^go (\d+)\.(\d+)", text, re.MULTILINE)
        if kubernetes is None or go is None:
            raise ValueError(f"{go_mod} names no version of k8s.io/kubernetes, or of go")
        return cls(kubernetes=kubernetes[1], go=(int(go[1]), int(go[2])))

    @property
    def minor(self) -> tuple[int, int]:
        found = version_in(self.kubernetes)
        if found is None:
            raise ValueError(f"{self.kubernetes} is not a Kubernetes version")
        return found

    def fits(self, program: Program, version: tuple[int, int] | None) -> bool:
        """Whether a program of this major and minor version can be part of the control plane.

        Kubernetes' own must be of one minor, for a controller manager may not be newer than its API server; etcd must
        be one that this API server supports.
        """
        if version is None:
            return False
        if program.name == "etcd":
            return version[0] == _OLDEST_ETCD[0] and version >= _OLDEST_ETCD
        return version == self.minor

    def linker_flags(self) -> str:
        """Without symbols, and with the version that `kubectl version` shows for both sides."""
        major, minor = self.minor
        package = "k8s.io/component-base/version"
        values = {"gitVersion": self.kubernetes, "gitMajor": major, "gitMinor": minor}
        return " ".join(["-s -w", *(f"-X {package}.{name}={value}" for name, value in values.items())])


def version_in(text: str) -> tuple[int, int] | None:
    """The first major and minor version that a program's output names, or None."""
    found = re.search(r"(\d+)\.(\d+)\.\d+", text)
    return (int(found[1]), int(found[2])) if found else None
