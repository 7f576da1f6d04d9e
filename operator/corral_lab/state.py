"""What a lab must remember between two commands (addresses, ports), by part, in its `state.json`.

Each part of the lab reads and writes a section of its own, and what it writes it could also choose anew.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from corral_lab import errors, files, paths


def read(lab: paths.LabDir, section: str) -> dict[str, Any]:
    """The section as it was last written, or an empty one."""
    found = _whole(lab).get(section, {})
    return dict(found)


def write(lab: paths.LabDir, section: str, values: Mapping[str, Any]) -> None:
    """Replace the section by `values` (JSON values), and leave the others. The caller holds the lab's lock."""
    whole = _whole(lab)
    if whole.get(section) != dict(values):
        files.replace(lab.state, json.dumps(whole | {section: dict(values)}, indent=2, sort_keys=True) + "\n")


def _whole(lab: paths.LabDir) -> dict[str, Any]:
    try:
        whole = json.loads(lab.state.read_text())
    except FileNotFoundError:
        return {}
    except json.JSONDecodeError as error:
        raise errors.LabError(
            f"The lab's state in {lab.state} is not JSON ({error}).",
            next_step=f"Delete {lab.state}: the lab chooses its ports anew and keeps its data.",
        ) from error
    return dict(whole)
