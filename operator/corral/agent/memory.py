"""What the agent remembers of one guest between two passes; all of it may be lost without harm.

Lost at a restart: a power button is pressed once more, a guest that keeps stopping is started sooner, a failure is
retried sooner, and what was changed while no agent ran is put back without being counted.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from corral.agent import restarts


@dataclass(slots=True)
class Memory:
    """Times are seconds of the agent's monotonic clock.

    `button_pressed`: when the guest was asked to shut down, first and last. `unsettled_since`: the first pass that did
    not reach what this generation asks for. `failures`: how many passes in a row ended with something to retry.
    `held`: the rooms that were as this generation asks, once. `replugged`: when a NIC was plugged in anew last.
    """

    generation: int | None = None
    button_pressed: tuple[float, float] | None = None
    history: restarts.History = field(default_factory=restarts.History)
    unsettled_since: float | None = None
    failures: int = 0
    held: set[str] = field(default_factory=set)
    replugged: float | None = None

    def take_up(self, generation: int) -> None:
        """Begin anew with a spec that was not seen before: what failed may well succeed now."""
        if generation != self.generation:
            self.generation = generation
            self.history = restarts.History()
            self.unsettled_since = None
            self.failures = 0
            self.held.clear()
