"""Corral: the controller, the agent, the API they share and the command that runs them."""

from __future__ import annotations

import importlib.metadata


def version() -> str:
    """The version that is installed."""
    return importlib.metadata.version("corral")
