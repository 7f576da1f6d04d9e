"""How long every transition may take before it is Stalled: one table, read by whoever concludes a condition."""

from __future__ import annotations

DEADLINES: dict[str, float] = {
    "Scheduled": 60.0,
    "AgentConnected": 60.0,
    "ImageReady": 1800.0,
    "StorageReady": 120.0,
    "NetworkReady": 60.0,
    "PowerStateSynced": 120.0,
    "HypervisorReady": 60.0,
    "FabricReady": 60.0,
    "Fetchable": 1800.0,
    "PoolsFound": 60.0,
    "Exclusive": 60.0,
    "Removing": 3600.0,
}
"""Seconds that a condition may be anything but True, by its type; `PowerStateSynced` has the grace period on top."""

LEASE_RENEWED_EVERY = 10.0
"""Seconds between two signs of life of an agent."""

AGENT_SILENT_AFTER = 40.0
"""Seconds without a sign of life after which an agent counts as silent."""

ROLL_CALL = 60.0
"""Seconds after its begin in which a controller that is about to place something waits for what hosts say they run."""

BLOCK_IDLE = 600.0
"""Seconds for which nobody has had an address of a block before its host returns it."""

LEADER_LEASE = 15.0
"""Seconds without a renewal after which another controller takes over."""

LEADER_STOPS_AFTER = 10.0
"""Seconds since it sent its last renewal after which a controller writes nothing more."""

LEADER_RENEWED_EVERY = 5.0
"""Seconds between two renewals."""

LEADER_ASKED_EVERY = 2.0
"""Seconds after which a renewal that failed is tried again, and between two looks of a controller that stands by."""
