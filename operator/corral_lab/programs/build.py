"""Provide the control plane's programs: what is not on this machine is built once, and kept in the cache.

`corral lab up` and the tests' fixture call `provide`. A build takes minutes and gigabytes, so it shows its progress,
has caches of its own that are removed whatever happens, and leaves either a whole program or none.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from corral_lab import errors, files, paths, process, progress
from corral_lab.programs import lookup, recipe, toolchain

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DISK_BYTES = 6 * 1024**3
"""What a build needs for as long as it takes: 4 GB of build cache, 1 GB of sources, and the programs."""

_SCRATCH = "build-"


def provide(cache: paths.Cache, environ: Mapping[str, str], steps: progress.Steps) -> recipe.Programs:
    """The four programs: found by `lookup.find`, or built now.

    Raises `errors.LabError` where they can't be built: no Go, no disk space, no network, or a failing compiler.
    """
    wanted = recipe.Recipe.read()
    kept = cache.programs(wanted.kubernetes)
    found = lookup.find(wanted, environ, kept)
    for sentence in found.passed_over:
        steps.say(sentence)
    if _missing(found):
        # Two labs that start at once must not build the same thing twice: the second waits, and finds it there.
        with files.hold(cache.root / "programs" / "lock"):
            found = lookup.find(wanted, environ, kept)
            if missing := _missing(found):
                build(missing, cache, environ, steps)
                found = lookup.find(wanted, environ, kept)
    return recipe.Programs(
        etcd=found.paths["etcd"],
        kube_apiserver=found.paths["kube-apiserver"],
        kube_controller_manager=found.paths["kube-controller-manager"],
        kubectl=found.paths["kubectl"],
    )


def build(
    missing: tuple[recipe.Program, ...], cache: paths.Cache, environ: Mapping[str, str], steps: progress.Steps
) -> None:
    """Build the `missing` programs into the cache. The caller holds the lock of the cache's programs."""
    wanted = recipe.Recipe.read()
    go = toolchain.find(environ, wanted.go)
    target = cache.programs(wanted.kubernetes)
    target.mkdir(parents=True, exist_ok=True)
    _sweep(cache, target)
    _need_space(cache)
    steps.say(
        f"Building {len(missing)} of the control plane's programs (Kubernetes {wanted.kubernetes}), "
        "once for this machine. The first also fetches what the others share."
    )
    with _scratch(cache) as scratch:
        bench = _Bench(go=go, scratch=scratch, environ=_environment(environ, scratch), flags=wanted.linker_flags())
        for number, program in enumerate(missing, 1):
            title = f"{program.name} ({number} of {len(missing)})"
            with steps.step(title, hint=f"{_expectation(program)} on two cores") as step:
                bench.make(program, target, step)


def _missing(found: lookup.Found) -> tuple[recipe.Program, ...]:
    return tuple(program for program in recipe.PROGRAMS if program.name not in found.paths)


def _expectation(program: recipe.Program) -> str:
    return f"about {program.seconds / 60:.0f} min" if program.seconds >= 60 else f"about {program.seconds} s"


def _sweep(cache: paths.Cache, target: Path) -> None:
    """Remove what a build left that was killed. The lock is ours, so nothing here is in use."""
    for leftover in cache.root.glob(f"{_SCRATCH}*"):
        shutil.rmtree(leftover)
    for partial in target.glob("*.partial"):
        partial.unlink()


def _need_space(cache: paths.Cache) -> None:
    free = shutil.disk_usage(cache.root).free
    if free < DISK_BYTES:
        raise errors.LabError(
            f"Building the control plane's programs needs {DISK_BYTES / 1e9:.0f} GB for some minutes, "
            f"and {cache.root} has {free / 1e9:.1f} GB free.",
            next_step="Make room there, or set CORRAL_CACHE to a folder on a larger disk.",
        )


@contextmanager
def _scratch(cache: paths.Cache) -> Iterator[Path]:
    """A folder in the cache, for the usual temporary folder may be memory. It is gone afterwards, whatever happened."""
    scratch = cache.root / tempfile.mkdtemp(prefix=_SCRATCH, dir=cache.root)
    try:
        for name in ("go.mod", "go.sum"):
            shutil.copy(recipe.HERE / name, scratch / name)
        for folder in ("modules", "objects", "tmp", "gopath"):
            (scratch / folder).mkdir()
        yield scratch
    finally:
        shutil.rmtree(scratch)


def _environment(environ: Mapping[str, str], scratch: Path) -> dict[str, str]:
    """The user's own, so that proxies keep working, but with our caches and none of their build settings."""
    return dict(environ) | {
        "CGO_ENABLED": "0",
        "GOCACHE": str(scratch / "objects"),
        "GOMODCACHE": str(scratch / "modules"),
        "GOPATH": str(scratch / "gopath"),
        "GOTMPDIR": str(scratch / "tmp"),
        # Else Go makes its module cache read-only, and it could not be removed.
        "GOFLAGS": "-modcacherw -buildvcs=false",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
    }


@dataclass(frozen=True, slots=True)
class _Bench:
    """Go, set up in a scratch folder."""

    go: Path
    scratch: Path
    environ: Mapping[str, str]
    flags: str

    def make(self, program: recipe.Program, target: Path, step: progress.Step) -> None:
        """Build one program to `target` under a temporary name, and give it its own when it is whole."""
        partial = target / f"{program.name}.partial"
        log = self.scratch / f"{program.name}.log"
        command = [str(self.go), "build", "-trimpath", "-ldflags", self.flags, "-o", str(partial), program.package]
        try:
            status = self._run(command, log, step, _expectation(program))
            if status != 0:
                raise errors.LabError(
                    f"{program.name} could not be built (go exited with {status}):\n{process.tail(log)}",
                    next_step="Check the network and any GOPROXY setting, then run the same command again: "
                    "what is already built is kept.",
                )
            partial.replace(target / program.name)
        finally:
            partial.unlink(missing_ok=True)

    def _run(self, command: list[str], log: Path, step: progress.Step, expectation: str) -> int:
        """Run `command` to its end. Its whole process group ends with us: Go starts many compilers."""
        with (
            log.open("w") as output,
            subprocess.Popen(
                command, cwd=self.scratch, env=self.environ, stdout=output, stderr=output, process_group=0
            ) as running,
        ):
            try:
                while True:
                    try:
                        return running.wait(timeout=1.0)
                    except subprocess.TimeoutExpired:
                        step.note(f"{expectation} on two cores")
            finally:
                if running.poll() is None:
                    os.killpg(running.pid, signal.SIGKILL)
