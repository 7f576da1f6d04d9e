"""Find the control plane's programs where they may already be: `KUBEBUILDER_ASSETS`, PATH, our cache, in this order.

A program of another version is passed over, and said so where somebody pointed at it on purpose. `build.provide` is the
caller; it builds what is missing here.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from corral_lab.programs import recipe


@dataclass(frozen=True, slots=True)
class Found:
    """What is there: program name → path; and, as sentences, what was asked for but does not fit."""

    paths: Mapping[str, Path]
    passed_over: tuple[str, ...] = ()


def find(wanted: recipe.Recipe, environ: Mapping[str, str], cache: Path) -> Found:
    """Look for each program by itself: envtest's assets, for one, hold no controller manager.

    `cache` is the folder of this very Kubernetes version, so what is in it is taken unasked.
    """
    paths: dict[str, Path] = {}
    passed_over: list[str] = []
    assets = environ.get("KUBEBUILDER_ASSETS")
    for program in recipe.PROGRAMS:
        if assets and (candidate := _executable(program.name, assets)):
            if wanted.fits(program, version := _version(candidate, program)):
                paths[program.name] = candidate
                continue
            passed_over.append(_not_used(candidate, version, wanted))
        candidate = _executable(program.name, environ.get("PATH", ""))
        if candidate and wanted.fits(program, _version(candidate, program)):
            paths[program.name] = candidate
        elif built := _executable(program.name, str(cache)):
            paths[program.name] = built
    return Found(paths, tuple(passed_over))


def _executable(name: str, folders: str) -> Path | None:
    found = shutil.which(name, path=folders) if folders else None
    return Path(found).absolute() if found else None


def _version(path: Path, program: recipe.Program) -> tuple[int, int] | None:
    """What the program says it is; None where it does not run, or is something else of that name."""
    try:
        answer = subprocess.run(
            [path, *program.version_arguments], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return recipe.version_in(answer.stdout)


def _not_used(path: Path, version: tuple[int, int] | None, wanted: recipe.Recipe) -> str:
    has = f"is version {version[0]}.{version[1]}" if version else "tells no version"
    return f"KUBEBUILDER_ASSETS: {path} {has} and does not fit Kubernetes {wanted.kubernetes}; it is not used."
