"""kubectl, as a person would type it: how the lab and the demo write and read objects."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from corral_lab import errors


@dataclass(frozen=True, slots=True)
class Kubectl:
    """The program, the kubeconfig that it uses, and the folder in which it keeps what it learns of the API.

    Every call raises `errors.LabError` with kubectl's own words.
    """

    program: Path
    kubeconfig: Path
    cache: Path

    def apply(self, *objects: Mapping[str, Any]) -> None:
        """Apply objects, by server-side apply."""
        self.apply_text(yaml.safe_dump_all(objects, sort_keys=False))

    def apply_text(self, manifests: str) -> None:
        """Apply YAML documents, by server-side apply."""
        self.run("apply", "--server-side", "--force-conflicts", "--filename", "-", given=manifests)

    def wait(self, condition: str, *what: str, seconds: float = 60) -> None:
        """Wait until the condition holds of all of `what`."""
        self.run("wait", f"--for={condition}", f"--timeout={seconds:.0f}s", *what, limit=seconds + 10)

    def get(self, *what: str) -> Any:
        """What `kubectl get … -o json` prints, parsed."""
        return json.loads(self.run("get", *what, "--output", "json"))

    def run(self, *arguments: str, given: str | None = None, limit: float = 60) -> str:
        """What kubectl prints; `given` is its input, `limit` in seconds."""
        command = [str(self.program), "--kubeconfig", str(self.kubeconfig), "--cache-dir", str(self.cache), *arguments]
        # The API server is on this machine: a proxy that the caller's environment names could not reach it.
        environ = os.environ | {"NO_PROXY": "*", "no_proxy": "*"}
        try:
            done = subprocess.run(
                command, env=environ, input=given, capture_output=True, text=True, timeout=limit, check=False
            )
        except subprocess.TimeoutExpired:
            raise _failed(arguments, f"it took longer than {limit:.0f} s") from None
        if done.returncode != 0:
            raise _failed(arguments, done.stderr.strip() or f"it ended with {done.returncode}")
        return done.stdout


def _failed(arguments: tuple[str, ...], why: str) -> errors.LabError:
    return errors.LabError(
        f"kubectl {' '.join(arguments)}: {why}",
        next_step="Look at the lab with `corral lab status`, and at the logs in its folder.",
    )
