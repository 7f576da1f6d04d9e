"""How the fleet is, in numbers, from the store: the controller's metrics ask at every scrape."""

from __future__ import annotations

from collections import Counter

from corral import metrics
from corral.controller.world import HOSTS, VMS, World


def look(world: World) -> metrics.Fleet:
    """VirtualMachines by the status that people read (Pending before there is one), Hosts by Ready."""
    machines = Counter(
        obj.get("status", {}).get("printableStatus") or "Pending" for _, obj in world.store.all(VMS.plural)
    )
    hosts = Counter(_ready(obj.get("status", {})) for _, obj in world.store.all(HOSTS.plural))
    return metrics.Fleet(machines, hosts, world.guard.held)


def _ready(status: dict[str, object]) -> str:
    said = status.get("conditions")
    conditions = said if isinstance(said, list) else []
    return next((str(one["status"]) for one in conditions if one["type"] == "Ready"), "Unknown")
