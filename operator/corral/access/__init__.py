"""What the controller and the agents may do: RBAC and policies as files, applied by the lab and by the chart."""

from __future__ import annotations

import importlib.resources


def manifests() -> str:
    """All of it, as YAML documents."""
    folder = importlib.resources.files(__name__)
    return "---\n".join((folder / name).read_text() for name in ("controller.yaml", "agent.yaml", "policies.yaml"))
